"""``python -m zoo data``: what can be done with folders of data; tasks add commands of their own by their specs."""

from typing import Any

from zoo.cli.data_catalogue import catalogue_parser, make_catalogue
from zoo.cli.data_check import check, check_parser
from zoo.cli.data_export import export_data, export_parser
from zoo.cli.data_import import import_data, import_parser
from zoo.spec import Command, find_specs, load_object

TASK_LINES = {
    "Multimodal_Retrieval": "{pictures:,} images, {name:,} + {base:,} queries",
    "ECommerce-T2I": "{names:,} descriptions, an image each",
    "ECommerce-IC": "{pictures:,} images",
}
WITH_EXIT_CODE = {"catalogue": make_catalogue, "check": check, "import": import_data, "export": export_data}


def main(argv: list[str]) -> int:
    """Run a sub-command of ``data``.

    Args:
        argv: The words after ``python -m zoo data``.

    Returns:
        0; 1 when a checked folder or an imported table has errors.

    Raises:
        UserError: If the data cannot be written or there is none to read.
    """
    from zoo.core.command import CommandParser

    of_tasks = task_commands()
    if argv and argv[0] in of_tasks:
        return int(load_object(of_tasks[argv[0]].where)(argv[1:]))
    parser = CommandParser(
        prog="python -m zoo data", description="Make, check, import and export folders in MUGE's formats."
    )
    commands = parser.add_subcommands(title="commands", dest="command", metavar="COMMAND")
    demo = CommandParser(
        description="Write the embedded data set: OpenMoji images with Chinese names, for all of MUGE's tasks, in"
        " MUGE's own file formats. Takes about ten seconds; what is there already is kept."
    )
    demo.add_argument(
        "--root", type=str, metavar="DIR", help="The folder to write: new, or empty. By default zoo's cache."
    )
    commands.add_subcommand("demo", demo, help="write the embedded data set and say where it is")
    commands.add_subcommand("catalogue", catalogue_parser(), help="draw a shop's products, for all tasks")
    commands.add_subcommand("check", check_parser(), help="list every error in a folder of data")
    commands.add_subcommand("import", import_parser(), help="turn your own table and images into MUGE's formats")
    commands.add_subcommand("export", export_parser(), help="turn MUGE's formats into image files and a table")
    for name, command in of_tasks.items():
        commands.add_subcommand(name, CommandParser(), help=command.summary)
    options = parser.parse_args(argv)
    if options.command in WITH_EXIT_CODE:
        return WITH_EXIT_CODE[options.command](options[options.command])
    print(demo_report(options.demo.root))
    return 0


def task_commands() -> dict[str, Command]:
    """Find the commands under ``data`` that tasks add, by name."""
    return {name: command for spec in find_specs() for name, command in spec.data_commands.items()}


def demo_report(root: str | None = None) -> str:
    """Make the embedded data where it is not there, and describe it.

    Args:
        root: The folder; None for the cache.
    """
    from zoo.data.catalogue.demo import ATTRIBUTION, LICENSE_URL, demo_root, frozen, write_demo

    folder = demo_root() if root is None else write_demo(root)
    lines = [str(folder)]
    for task, line in TASK_LINES.items():
        lines.append(f"  {task}")
        for split, counts in frozen()["splits"].items():
            lines.append(f"    {split:<6} {line.format(**_counts(counts))}")
    lines += ["Queries: exact names of one image + base names, relevant to all variants.", ATTRIBUTION, LICENSE_URL]
    return "\n".join(lines)


def _counts(split: dict[str, Any]) -> dict[str, int]:
    return {**{key: split[key] for key in ("names", "pictures")}, **split["queries"]}
