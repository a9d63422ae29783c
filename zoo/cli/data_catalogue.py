"""``python -m zoo data catalogue``: a shop's products, drawn by rule, for all tasks."""

from zoo.core.command import CommandParser, GivenPath


def catalogue_parser() -> CommandParser:
    """Describe the command line."""
    parser = CommandParser(
        description="Draw a shop's products by rule, with queries, titles and copy in Chinese, and write them in MUGE's"
        " formats for all tasks. The test split asks for known words in combinations that no training image has. What"
        " an interrupted call has drawn is not drawn again."
    )
    parser.add_argument("directory", metavar="DIR", type=GivenPath, help="A folder: new, empty, or begun before.")
    parser.add_argument(
        "--size",
        default="demo",
        help="demo: 12,000 training images, 1,000 to validate, 3,000 to test; muge: MUGE's own numbers; or a number of"
        " training images.",
    )
    parser.add_argument("--image_size", type=int, default=128, help="Pixels of a side, 32 to 1,024.")
    return parser


def make_catalogue(options: object) -> int:
    """Make it, and say where what is.

    Returns:
        The exit code, 0.
    """
    from zoo.data.catalogue.make import write_catalogue

    directory, size, image_size = (getattr(options, name) for name in ("directory", "size", "image_size"))
    made = write_catalogue(directory, size=int(size) if str(size).isdigit() else size, image_size=image_size)
    print(directory)
    for split, counts in made["splits"].items():
        print(f"  {split:<13}" + ", ".join(f"{count:,} {noun}" for noun, count in counts.items()))
    print("What is to be seen in each image: catalogue_SPLIT.jsonl. Judges are trained on scorer/.")
    return 0
