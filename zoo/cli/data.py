"""``python -m zoo data``: what can be done with folders of data."""

from pathlib import Path
from typing import Any

from zoo.cli.data_check import check, check_parser
from zoo.cli.data_export import export_data, export_parser
from zoo.cli.data_import import import_data, import_parser
from zoo.spec import find_specs, load_object

TASK_LINES = {
    "Multimodal_Retrieval": "{pictures:,} pictures, {name:,} + {base:,} queries",
    "ECommerce-T2I": "{names:,} descriptions, a picture each",
    "ECommerce-IC": "{pictures:,} pictures",
}
WITH_EXIT_CODE = {"check": check, "import": import_data, "export": export_data}


def main(argv: list[str]) -> int:
    """Run a sub-command of ``data``.

    Args:
        argv: The words after ``python -m zoo data``.

    Returns:
        0; 1 when a checked folder or an imported table has faults.

    Raises:
        UserError: If the data cannot be written or there is none to read.
    """
    from zoo.core.command import CommandParser

    of_tasks = {name: command for spec in find_specs() for name, command in spec.data_commands.items()}
    if argv and argv[0] in of_tasks:
        return load_object(of_tasks[argv[0]].where)(argv[1:])
    parser = CommandParser(
        prog="python -m zoo data", description="Make, check, encode, import and export folders in MUGE's formats."
    )
    commands = parser.add_subcommands(title="commands", dest="command", metavar="COMMAND")
    demo = CommandParser(
        description="Write the embedded data set: OpenMoji pictures with Chinese names, for all three tasks of MUGE, "
        "in MUGE's own file formats. Takes about ten seconds; what is there already is kept."
    )
    demo.add_argument(
        "--root", type=str, metavar="DIR", help="Where to write it: a new or empty folder. Left out: zoo's cache."
    )
    commands.add_subcommand("demo", demo, help="write the embedded data set and say where it is")
    commands.add_subcommand("check", check_parser(), help="list every fault of a folder of data")
    commands.add_subcommand("import", import_parser(), help="your own table and pictures into MUGE's formats")
    commands.add_subcommand("export", export_parser(), help="MUGE's formats into files of pictures and a table")
    for name, command in of_tasks.items():
        commands.add_subcommand(name, CommandParser(), help=command.summary)
    options = parser.parse_args(argv)
    if options.command in WITH_EXIT_CODE:
        return WITH_EXIT_CODE[options.command](options[options.command])
    print(demo_report(options.demo.root))
    return 0


def demo_report(root: str | None = None) -> str:
    """Make the embedded data where it is not there, and describe it.

    Args:
        root: The folder; None for the cache.
    """
    from zoo.data.catalogue.demo import ATTRIBUTION, LICENSE_URL, demo_root, frozen, write_demo

    folder = demo_root() if root is None else write_demo(Path(root).expanduser())
    lines = [str(folder)]
    for task, line in TASK_LINES.items():
        lines.append(f"  {task}")
        for split, counts in frozen()["splits"].items():
            name = "val" if task == "ECommerce-T2I" and split == "valid" else split  # as MUGE names the files
            lines.append(f"    {name:<6} {line.format(**_counts(counts))}")
    lines += ["Queries: exact names of one picture + base names, true for all variants.", ATTRIBUTION, LICENSE_URL]
    return "\n".join(lines)


def _counts(split: dict[str, Any]) -> dict[str, int]:
    return {**{key: split[key] for key in ("names", "pictures")}, **split["queries"]}
