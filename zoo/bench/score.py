"""``bench score``: scores of pictures against torch-fidelity's, and whether reading pictures holds Inception up."""

import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.bench.data import temporary_folder
from zoo.bench.harness import Row, in_a_new_process, interleave, peak_memory, protocol, rate, report
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.tasks.text_to_image.inception import Inception

SIZE = 256
BATCH_SIZE = 32
LATENT = 300  # independent directions of the features, as many as real ones may have
WANTED = 1.0
WANTED_READING = 0.95
SCORES = ("Fréchet distance", "kernel distance")


def run(*, rows: int, width: int, pictures: int, blocks: int, output: str | None) -> None:
    """Measure, print, write.

    Args:
        rows: Pictures whose features are scored, of each side.
        width: Dimensions of the features.
        pictures: Pictures that Inception sees in a block.
        blocks: Blocks of each contender.
        output: Where the JSON goes.

    Raises:
        UserError: There are no more rows than dimensions.
    """
    if rows <= width:
        raise UserError(f"--rows is {rows}: give {width + 1} or more, for the features have --width {width} dimensions")
    import torch

    a, b = features(0, rows, width), features(1, rows, width)
    table = []
    for score in SCORES:
        contenders = {who: rate(repeated(score_of(score, who), a, b)) for who in ("ours", "torch-fidelity")}
        rates = interleave(contenders, blocks=blocks, what=f"bench score: {score}")
        table.append(Row(score, "scores/s", rates, "ours", "torch-fidelity", WANTED))
    memory = {
        score: {who: extra_memory(score, who, rows, width) for who in ("ours", "torch-fidelity")} for score in SCORES
    }
    table.append(reading_row(pictures, blocks))
    facts = protocol(
        packages=("torch-fidelity", "numpy", "pillow", "pybase64"),
        features=f"{rows} × {width} a side, fp32, random, correlated; statistics included; the kernel distance over"
        f" 100 subsets of {min(1000, rows)}",
        values={score: {who: score_of(score, who)(a, b) for who in ("ours", "torch-fidelity")} for score in SCORES},
        memory_megabytes=memory,
        memory_is="peak above the features, in a process of its own after one of 64 × 32; 10^6 bytes",
        reading=f"{pictures} generated PNGs of {SIZE} px, checked and read as `score t2i` reads them, batches of"
        f" {BATCH_SIZE}, into Inception with random weights, fp32; beside it Inception on ready uint8 batches",
        threads=torch.get_num_threads(),
        blocks=f"{blocks} of one score, or of all pictures",
    )
    report("score", table, facts, output=output)


# --- scores ----------------------------------------------------------------------------------------------------------


def features(seed: int, rows: int, width: int) -> "Tensor":
    """Features like Inception's, ``[rows, width] float32``: none below 0, correlated; two seeds differ a little."""
    import torch

    mixing = torch.randn(LATENT, width, generator=torch.Generator().manual_seed(1234)) / LATENT**0.5
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, LATENT, generator=generator) @ mixing + 0.1 * seed
    return mixed.relu_().add_(torch.rand(rows, width, generator=generator), alpha=0.1)


def score_of(score: str, who: str) -> "Callable[[Tensor, Tensor], float]":
    """One of the scores, by us or by torch-fidelity, from features of both sides."""
    if who == "ours":
        from zoo.tasks.text_to_image.metrics.frechet import frechet_distance_of
        from zoo.tasks.text_to_image.metrics.kernel_distance import kernel_distance

        return frechet_distance_of if score == SCORES[0] else lambda a, b: kernel_distance(a, b).mean
    return torch_fidelity_frechet if score == SCORES[0] else torch_fidelity_kernel


def torch_fidelity_frechet(a: "Tensor", b: "Tensor") -> float:
    """Its FID of features."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(side) for side in (a, b)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def torch_fidelity_kernel(a: "Tensor", b: "Tensor") -> float:
    """Its KID of features, in subsets as small as ours."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(1000, len(a), len(b))
    return float(kid_features_to_metric(a, b, verbose=False, kid_subset_size=size)[KEY_METRIC_KID_MEAN])


def repeated(score: "Callable[[Tensor, Tensor], float]", a: "Tensor", b: "Tensor") -> Callable[[], float]:
    """One score, counted."""

    def once() -> float:
        score(a, b)
        return 1

    return once


# --- memory ----------------------------------------------------------------------------------------------------------


def extra_memory(score: str, who: str, rows: int, width: int) -> int | None:
    """Peak memory of one score above its features, 10^6 bytes, in a new process; None where Linux is not there."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    print(f"bench score: memory of {score}, {who}", file=sys.stderr, flush=True)
    return in_a_new_process(_extra_memory, score, who, rows, width)


def _extra_memory(score: str, who: str, rows: int, width: int) -> int:
    compute = score_of(score, who)
    compute(features(0, 64, 32), features(1, 64, 32))  # libraries and their threads are there now
    a, b = features(0, rows, width), features(1, rows, width)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at what is held now
    before = peak_memory()
    compute(a, b)
    return round((peak_memory() - before) / 1e6)


# --- reading ---------------------------------------------------------------------------------------------------------


def reading_row(pictures: int, blocks: int) -> Row:
    """Pictures a second from a TSV through Inception, beside Inception on pictures that are ready."""
    from zoo.data.formats import write_image_tsv
    from zoo.tasks.text_to_image.contracts import GenerationGold
    from zoo.tasks.text_to_image.inception import Inception, random_weights
    from zoo.tasks.text_to_image.submission_files import T2ISubmission

    inception = Inception(random_weights(), "random")
    ids = [str(number) for number in range(pictures)]
    gold = GenerationGold("test", "generated", image_ids=ids, texts=ids, rows=list(range(pictures)), has_pictures=False)
    with temporary_folder() as folder:
        write_image_tsv(folder / "T2I_test.tsv", zip(ids, map(product_png, range(pictures)), strict=True))

        def read() -> "Iterator[Tensor]":
            for batch in T2ISubmission(folder / "T2I_test.tsv", gold).pictures(batch_size=BATCH_SIZE):
                yield batch["image"]

        ready = list(read())
        rates = interleave(
            {"read and seen": rate(lambda: see(inception, read())), "seen": rate(lambda: see(inception, ready))},
            blocks=blocks,
            what="bench score: reading",
        )
    return Row("reading", "pictures/s", rates, "read and seen", "seen", WANTED_READING)


def see(inception: "Inception", batches: "Iterable[Tensor]") -> int:
    """Show Inception batches of ``[B, 3, H, W] uint8``, wherever they come from; returns the pictures."""
    return sum(len(inception(batch)[0]) for batch in batches)


def product_png(seed: int) -> bytes:
    """A PNG like a generated picture: textured things on white."""
    from PIL import Image

    from zoo.bench.data import product_picture

    file = BytesIO()
    with Image.open(BytesIO(product_picture(seed))) as picture:
        picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
