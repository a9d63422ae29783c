"""``bench score``: distances between images against torch-fidelity's, and whether reading holds Inception up."""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from zoo.core.bench.harness import Row, interleave, protocol, rate, report, run_bench
from zoo.core.bench.samples import product_jpeg, temporary_folder
from zoo.errors import invalid

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 256
BATCH_SIZE = 32
LATENT = 300  # independent directions of the features, as many as real ones may have
WANTED = 1.0
WANTED_READING = 0.95


def main(argv: list[str]) -> int:
    """Run ``bench score``."""
    return run_bench("score", measure, argv)


def measure(
    *, rows: int = 5000, width: int = 2048, images: int = 96, blocks: int = 5, output: str | None = None
) -> None:
    """Measure the scores a second from ready features, Fréchet and kernel distance, against torch-fidelity.

    Then images a second from a TSV of PNGs through Inception, against Inception alone. About four minutes on two cores.

    Args:
        rows: Images of a side, more than the width.
        width: Dimensions of the features.
        images: Images that Inception sees in a block.
        blocks: Blocks of each contender.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: There are no more rows than dimensions.
    """
    if rows <= width:
        raise invalid("--rows", rows, f"give {width + 1} or more, for the features have --width {width} dimensions")
    import torch

    values: dict[str, dict[str, float]] = {}
    table = []
    for name, contenders in distances(features(0, rows, width), features(1, rows, width)).items():
        values[name] = {who: compute() for who, compute in contenders.items()}
        rates = interleave(
            {who: rate(counted(compute)) for who, compute in contenders.items()},
            blocks=blocks,
            what=f"bench score: {name}",
        )
        table.append(Row(name, "scores/s", rates, "ours", "torch-fidelity", WANTED))
    table.append(reading_row(images, blocks))
    metadata = protocol(
        packages=("torch-fidelity", "numpy", "pillow", "pybase64"),
        features=f"{rows} × {width} a side, fp32, random, correlated; statistics included; the kernel distance over"
        f" 100 subsets of {min(1000, rows)}",
        values=values,
        reading=f"{images} generated PNGs of {SIZE} px, checked and read as a submission is, batches of {BATCH_SIZE},"
        " into Inception with random weights, fp32; beside it Inception on ready uint8 batches",
        threads=torch.get_num_threads(),
        blocks=f"{blocks} of one score, or of all images",
    )
    report("score", table, metadata, output=output)


def counted(score: Callable[[], float]) -> Callable[[], int]:
    """Count a score as one, for ``rate``."""
    return lambda: len([score()])


def features(seed: int, rows: int, width: int) -> "Tensor":
    """Make features like Inception's, ``[rows, width] float32``: none below 0, correlated, a little by seed."""
    import torch

    mixing = torch.randn(LATENT, width, generator=torch.Generator().manual_seed(1234)) / LATENT**0.5
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, LATENT, generator=generator) @ mixing + 0.1 * seed
    return mixed.relu_().add_(torch.rand(rows, width, generator=generator), alpha=0.1)


def distances(a: "Tensor", b: "Tensor") -> dict[str, dict[str, Callable[[], float]]]:
    """The two distances between two sides' features, by name and by whose they are."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    from zoo.tasks.text_to_image.metrics.frechet import frechet_distance_of
    from zoo.tasks.text_to_image.metrics.kernel_distance import kernel_distance

    def peer_frechet() -> float:
        statistics = [fid_features_to_statistics(side) for side in (a, b)]
        return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])

    def peer_kernel() -> float:
        size = min(1000, len(a), len(b))  # of a subset, as ours
        return float(kid_features_to_metric(a, b, verbose=False, kid_subset_size=size)[KEY_METRIC_KID_MEAN])

    return {
        "Fréchet distance": {"ours": lambda: frechet_distance_of(a, b), "torch-fidelity": peer_frechet},
        "kernel distance": {"ours": lambda: kernel_distance(a, b).mean, "torch-fidelity": peer_kernel},
    }


def reading_row(images: int, blocks: int) -> Row:
    """Measure images a second from a TSV through Inception, beside Inception on images that are ready."""
    from zoo.data.formats import write_image_tsv
    from zoo.tasks.text_to_image.contracts import GenerationTargets
    from zoo.tasks.text_to_image.inception import Inception, random_weights
    from zoo.tasks.text_to_image.submission_files import T2ISubmission

    inception = Inception(random_weights(), "random")
    ids = [str(number) for number in range(images)]
    targets = GenerationTargets(
        "test", "generated", image_ids=ids, texts=ids, rows=list(range(images)), has_images=False
    )
    with temporary_folder() as folder:
        write_image_tsv(folder / "T2I_test.tsv", zip(ids, map(product_png, range(images)), strict=True))

        def read() -> "Iterator[Tensor]":
            for batch in T2ISubmission(folder / "T2I_test.tsv", targets).batches(batch_size=BATCH_SIZE):
                yield batch["image"]

        ready = list(read())
        rates = interleave(
            {
                "read and seen": rate(lambda: sum(len(inception(batch)[0]) for batch in read())),
                "seen": rate(lambda: sum(len(inception(batch)[0]) for batch in ready)),
            },
            blocks=blocks,
            what="bench score: reading",
        )
    return Row("reading", "images/s", rates, "read and seen", "seen", WANTED_READING)


def product_png(seed: int) -> bytes:
    """Draw a PNG like a generated image: textured things on white."""
    from PIL import Image

    file = BytesIO()
    with Image.open(BytesIO(product_jpeg(seed))) as image:
        image.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
