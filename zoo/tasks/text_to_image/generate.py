"""``python -m zoo generate CHECKPOINT TEXT …``: images of prompts that are typed."""

import re
from pathlib import Path
from typing import Any

from zoo.core.command import CommandParser, GivenPath, add_precision, progress
from zoo.errors import UserError

BATCH = 32
IMAGE_SIZE = 192  # on the image grid, pixels


def main(argv: list[str]) -> int:
    """Generate and write.

    Args:
        argv: The words after ``python -m zoo generate``.

    Returns:
        0.

    Raises:
        UserError: The checkpoint is no generator's, an option is none of its, or the output cannot be written.
    """
    parser = generate_parser()
    options = parser.parse_args(argv)
    if options.seeds < 1 or not 0 <= options.first_seed < 2**63 - options.seeds:
        parser.error(
            f"--seeds is {options.seeds}, --first_seed {options.first_seed}: give 1 or more, and 0 to 2^63 - 1"
        )
    if not all(text.strip() for text in options.texts):
        parser.error("a TEXT is empty: give a prompt")
    out = Path(options.out)
    check_output_path(out)
    import torch

    import zoo
    from zoo.core.precision import autocast

    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = zoo.load(options.checkpoint, device=device)
    if not hasattr(task, "generator"):
        raise UserError(f"{options.checkpoint}: it is of {type(task).__name__}, which generates no images")
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    with autocast(options.precision, task.device):
        images = sample(task.generator, options.texts, seeds, options.sampling or {})
    written = write(images, options.texts, seeds, out)
    print(f"{written}: {len(options.texts)} x {len(seeds)} images of {task.image_size} px")
    return 0


def generate_parser() -> CommandParser:
    """The options of ``generate``."""
    parser = CommandParser(
        prog="python -m zoo generate",
        description="Generate images of prompts. An image is a function of checkpoint, prompt, seed and"
        " sampling options; it is computed on a GPU where there is one.",
    )
    parser.add_argument(
        "checkpoint",
        type=str,
        help="A text-to-image checkpoint, a run's folder or an experiment's (runs/diffusion_demo: its newest run); or a"
        " pipeline of diffusers: a folder or a hub name.",
    )
    parser.add_argument("texts", type=str, nargs="+", metavar="TEXT", help="A prompt, in quotes; or several.")
    parser.add_argument("--seeds", type=int, default=4, help="Images of each prompt.")
    parser.add_argument("--first_seed", type=int, default=0, help="Seed of the first image; the next ones count up.")
    parser.add_argument(
        "--out",
        type=GivenPath,
        default="grid.png",
        help="A PNG file: one image grid of all images, a line for each prompt. Anything else is a folder, which"
        " gets the image grid and each image as it was generated.",
    )
    parser.add_argument(
        "--sampling",
        type=dict[str, Any] | None,
        default=None,
        help="How to sample, where it is not to be as in training: --sampling.guidance 6. Of diffusion: guidance,"
        " guidance_until, solver, steps; of published pipelines: guidance, steps; of codes: guidance, temperature,"
        " top_k, top_p.",
    )
    add_precision(parser)
    return parser


def sample(generator: Any, texts: list[str], seeds: list[int], sampling: dict[str, Any]) -> Any:
    """Images ``[texts, seeds, S, S, 3] uint8`` as a numpy array."""
    import torch

    wanted = [(text, seed) for text in texts for seed in seeds]
    parts = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
    sampled = []
    for part in progress(parts, "Sampling"):
        try:
            sampled.append(generator.generate([text for text, _ in part], seeds=[seed for _, seed in part], **sampling))
        except UserError as error:
            raise UserError(f"--sampling: {error}") from None
    images = torch.cat(sampled).permute(0, 2, 3, 1).cpu().numpy()
    return images.reshape(len(texts), len(seeds), *images.shape[1:])


def check_output_path(out: Path) -> None:
    """See, before the work, that the output is of the right kind.

    Raises:
        UserError: A folder is where a file belongs, or a file where a folder does.
    """
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise UserError(f"--out {out} is a folder: name a file in it, or a folder without .png at its end")
    elif out.suffix and not out.is_dir():
        raise UserError(f"--out {out}: image grids are PNG files: give a name that ends in .png, or a folder")
    elif out.is_file():
        raise UserError(f"--out {out} is a file: give a name that ends in .png, or a folder")


def write(images: Any, texts: list[str], seeds: list[int], out: Path) -> Path:
    """Write the image grid, and into a folder the single images too; atomically."""
    from PIL import Image

    from zoo.core.grids import GridRow, image_grid

    rows = [
        GridRow(text=text, images=list(row), hits=[False] * len(seeds)) for text, row in zip(texts, images, strict=True)
    ]
    titles = [f"seed {seed}" for seed in seeds]
    grid = image_grid(rows, image_size=IMAGE_SIZE, titles=titles)
    try:
        if out.suffix.lower() == ".png":
            _save(grid, out)
            return out
        _save(grid, out / "grid.png")
        for number, (text, row) in enumerate(zip(texts, images, strict=True)):
            name = re.sub(r"\W+", "_", text)[:40]
            for seed, image in zip(seeds, row, strict=True):
                _save(Image.fromarray(image), out / f"{number}-{name}-seed{seed}.png")
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}. Give a path in a folder of yours") from error
    return out


def _save(image: Any, path: Path) -> None:
    from zoo.io import atomic_write

    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG")
