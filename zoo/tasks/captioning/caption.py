"""``python -m zoo caption CHECKPOINT IMAGE …``: captions of image files."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.core.command import CommandParser, GivenPath, add_precision
from zoo.errors import UserError

BATCH = 32


def main(argv: list[str]) -> int:
    """Describe and print.

    Args:
        argv: The arguments after ``python -m zoo caption``.

    Returns:
        0, or 1 when some images cannot be read; the others are described.

    Raises:
        UserError: The checkpoint is no captioner's, or an option is none of its.
    """
    options = caption_parser().parse_args(argv)
    paths = [path for name in options.images for path in image_files(Path(name))]
    import torch

    import zoo
    from zoo.core.precision import autocast
    from zoo.core.runs import newest_run

    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = zoo.load(options.checkpoint, device=device)
    if not hasattr(task, "captioner"):
        raise UserError(f"{options.checkpoint}: it is of {type(task).__name__}, which writes no captions")
    print(f"{newest_run(options.checkpoint)}, {task.trained_steps} steps", file=sys.stderr)
    errors: list[str] = []
    with autocast(options.precision, task.device):
        for path, caption in describe(task.captioner, paths, options.decoding or {}, errors):
            record = {"image": str(path), "text": caption}
            print(json.dumps(record, ensure_ascii=False) if options.json else f"{path}\t{caption}")
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


def caption_parser() -> CommandParser:
    """Make the options of ``caption``."""
    parser = CommandParser(
        prog="python -m zoo caption",
        description="Write a Chinese caption of each image: a line of file, tab, caption. It is a function of"
        " checkpoint, image and decoding; it is computed on a GPU where there is one.",
    )
    parser.add_argument(
        "checkpoint",
        type=str,
        help="A captioning checkpoint, a run's folder or an experiment's (runs/caption_demo: its newest run).",
    )
    parser.add_argument(
        "images", type=GivenPath, nargs="+", metavar="IMAGE", help="An image, or a folder: all images in it."
    )
    parser.add_argument(
        "--decoding",
        type=dict[str, Any] | None,
        default=None,
        help="How to write, where it is not to be as in training: --decoding.beams 8 --decoding.length_penalty 0.",
    )
    add_precision(parser)
    parser.add_argument("--json", action="store_true", help="Print JSON lines of image and text.")
    return parser


def image_files(path: Path) -> list[Path]:
    """List a file, or all images of a folder by their names.

    Raises:
        UserError: There is no such file, or the folder has no images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"IMAGE {path}: there is no such file or folder")
    from PIL import Image

    endings = set(Image.registered_extensions())
    found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in endings)
    if not found:
        raise UserError(f"IMAGE {path}: the folder has no images in it")
    return found


def describe(
    captioner: Any, paths: list[Path], options: dict[str, Any], errors: list[str]
) -> Iterator[tuple[Path, str]]:
    """Describe each file; those that cannot be read are listed in ``errors``.

    Raises:
        UserError: An option is out of its range.
    """
    from PIL import Image
    from rich.console import Console
    from rich.progress import track

    from zoo.data import images

    parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    console = Console(stderr=True)
    for part in track(parts, "Writing", console=console, transient=True, disable=not console.is_terminal):
        decoded = {}
        for path in part:
            try:
                decoded[path] = Image.fromarray(images.decode(path.read_bytes()))
            except (OSError, images.ImageError) as error:
                errors.append(f"IMAGE {path}: {error}")
        try:
            captions = dict(zip(decoded, captioner.caption(list(decoded.values()), **options), strict=True))
        except UserError as error:
            raise UserError(f"--decoding: {error}") from None
        yield from ((path, captions[path]) for path in part if path in captions)
