"""``python -m zoo data encode``: images through an image tokenizer, once, into what training reads."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.command import CommandParser, GivenPath
from zoo.errors import UserError, invalid

if TYPE_CHECKING:
    from jsonargparse import Namespace


def encode_parser() -> CommandParser:
    """The options of ``data encode``."""
    parser = CommandParser(
        prog="python -m zoo data encode",
        description="Encode the training images of a text-to-image folder by an image tokenizer, for"
        " `--data.latents`: into a VQGAN's codes, or into latents, with the mean and deviation of each channel. An"
        " interrupted run goes"
        " on where it stopped.",
    )
    parser.add_argument(
        "root", type=str, metavar="ROOT", help="The ECommerce-T2I folder, or its parent; auto: the embedded data."
    )
    parser.add_argument(
        "--image_tokenizer",
        type=str,
        required=True,
        help="A trained image tokenizer (a run's folder or an experiment's, such as runs/vqgan_demo, a checkpoint, a"
        " file of taming-transformers), or diffusers:FOLDER, diffusers:HUB/NAME: an autoencoder, or a pipeline that has"
        " one.",
    )
    parser.add_argument("--image_size", type=int, default=256, help="Side of the square images in pixels.")
    parser.add_argument("--flipped", action="store_true", help="Encode each image flipped too, for --data.flip.")
    parser.add_argument("--batch_size", type=int, default=16, help="Images that are encoded together.")
    parser.add_argument("--num_workers", type=int, default=2, help="Processes that decode images.")
    parser.add_argument(
        "--on_error",
        choices=["raise", "skip"],
        default="raise",
        help="A broken row: raise names it; skip leaves it out. Train with --data.on_error as here.",
    )
    parser.add_argument(
        "--out",
        type=GivenPath,
        default=None,
        help="The folder to write; left out: latents-SIZE or codes-SIZE in the ECommerce-T2I folder, which"
        " `data.latents` then names so.",
    )
    return parser


def main(argv: list[str]) -> int:
    """Encode, and say where; see ``encode_parser`` for the options."""
    print(encode(encode_parser().parse_args(argv)))
    return 0


def encode(options: "Namespace") -> str:
    """Encode and write.

    Args:
        options: Those of ``encode_parser``.

    Returns:
        What lies where, for people.
    """
    for name, least in (("image_size", 1), ("batch_size", 1), ("num_workers", 0)):
        if options[name] < least:
            raise UserError(f"--{name} is {options[name]}: give {least} or more")
    import torch

    from zoo.core.weights import weights_hash
    from zoo.tasks.text_to_image.data import TextToImageDataModule
    from zoo.tasks.text_to_image.latents import ARRAY, METADATA, LatentMetadata, LatentsWriter

    tokenizer, name = open_image_tokenizer(options.image_tokenizer)
    codes = tokenizer.num_codes is not None
    if options.image_size % tokenizer.factor:
        raise invalid("--image_size", options.image_size, f"this image tokenizer takes multiples of {tokenizer.factor}")
    data = TextToImageDataModule(
        options.root,
        image_size=options.image_size,
        eval_batch_size=options.batch_size,
        num_workers=options.num_workers,
        on_error=options.on_error,
    )
    targets = data.targets("train")
    what = "codes" if codes else "latents"
    folder = Path(options.out) if options.out else Path(data.folder) / f"{what}-{options.image_size}"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file: give a folder")
    tokenizer = tokenizer.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
    metadata = LatentMetadata(
        targets.source, options.image_size, name, weights_hash(tokenizer), flipped=options.flipped
    )
    if written_metadata(folder) == metadata:
        return f"{folder}: these {what} are there already"
    side = options.image_size // tokenizer.factor
    each = (side, side) if codes else (tokenizer.channels, side, side)
    shape = (len(targets.texts), 2 if options.flipped else 1, *each)
    try:
        writer = LatentsWriter(folder, metadata, shape)
    except OSError as error:
        raise UserError(f"--out {folder} cannot be written: {error.strerror}. Give a folder of yours") from None
    if writer.done:
        print(f"{folder}: {writer.done} of {len(targets.texts)} images are encoded already: resuming", file=sys.stderr)
    batches: Any = data.images_loader("train", first=writer.done) if writer.done < shape[0] else []
    with torch.inference_mode():
        for batch in _progress(batches, options.batch_size):
            images = batch["image"].to(next(tokenizer.parameters()).device)
            views = [images, images.flip(-1)] if options.flipped else [images]
            encoded = torch.stack([tokenizer.encode(view) for view in views], dim=1)
            writer.write((encoded.int() if codes else encoded.half()).cpu().numpy())
    writer.finish()
    size = (folder / ARRAY).stat().st_size
    return f"{folder}: {len(targets.texts)} images as {list(shape[2:])}, {size / 1e6:.1f} MB; {METADATA} says of what"


def written_metadata(folder: Path) -> Any:
    """What the latents in a folder are of; None where there are none, or damaged ones, which are made anew."""
    from zoo.tasks.text_to_image.latents import Latents

    try:
        return Latents(folder).metadata
    except UserError:
        return None


def open_image_tokenizer(source: str) -> tuple[Any, str]:
    """An image tokenizer with its weights, and its registered name.

    Args:
        source: As of ``--image_tokenizer``.

    Raises:
        UserError: It is none, or its weights cannot be had.
    """
    import zoo
    from zoo.core.weights import load_pretrained
    from zoo.registry import IMAGE_TOKENIZERS

    if any(source.startswith(prefix) for prefix in IMAGE_TOKENIZERS.prefixes):
        tokenizer = IMAGE_TOKENIZERS.build(source)
        load_pretrained(tokenizer, True)
        return tokenizer, source
    if source in IMAGE_TOKENIZERS.names():
        raise UserError(
            f"--image_tokenizer {source}: that is its kind; give a trained one: a run's folder, a checkpoint"
        )
    task = zoo.load(source)
    if not hasattr(task, "image_tokenizer"):
        raise UserError(f"--image_tokenizer {source}: it is of {type(task).__name__}, and an image tokenizer is wanted")
    return task.image_tokenizer, task.hparams["image_tokenizer"]


def _progress(batches: Any, batch_size: int) -> Any:
    from rich.console import Console
    from rich.progress import track

    return track(batches, description=f"Encoding, {batch_size} at a time", console=Console(stderr=True))
