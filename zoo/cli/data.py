"""``python -m zoo data``: what can be done with folders of data; tasks add commands of their own by their specs."""

from zoo.cli.data_catalogue import catalogue_parser, make_catalogue
from zoo.cli.data_check import check, check_parser
from zoo.cli.data_export import export_data, export_parser
from zoo.cli.data_import import import_data, import_parser
from zoo.spec import Command, find_specs, load_object

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
        description="Say where the embedded data set is: the catalogue, for all of MUGE's tasks, in MUGE's own file"
        " formats. It is drawn into zoo's cache first where it is not there, in about 90 seconds on two cores."
    )
    commands.add_subcommand("demo", demo, help="say where the embedded data set is")
    commands.add_subcommand("catalogue", catalogue_parser(), help="draw a shop's products, for all tasks")
    commands.add_subcommand("check", check_parser(), help="list every error in a folder of data")
    commands.add_subcommand("import", import_parser(), help="turn your own table and images into MUGE's formats")
    commands.add_subcommand("export", export_parser(), help="turn MUGE's formats into image files and a table")
    for name, command in of_tasks.items():
        commands.add_subcommand(name, CommandParser(), help=command.summary)
    options = parser.parse_args(argv)
    if options.command in WITH_EXIT_CODE:
        return WITH_EXIT_CODE[options.command](options[options.command])
    print(demo_report())
    return 0


def task_commands() -> dict[str, Command]:
    """Find the commands under ``data`` that tasks add, by name."""
    return {name: command for spec in find_specs() for name, command in spec.data_commands.items()}


def demo_report() -> str:
    """Make the embedded data where it is not there, and describe it."""
    from zoo.cli.data_catalogue import described
    from zoo.data.catalogue.demo import demo_root
    from zoo.data.catalogue.make import MADE
    from zoo.io import read_json

    folder = demo_root()
    return described(folder, read_json(folder / MADE))
