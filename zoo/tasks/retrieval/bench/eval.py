"""``bench eval``: the exact ranking against the bare matrix product, faiss and cn-clip's published loop."""

from typing import TYPE_CHECKING

from zoo.core.bench.harness import Row, interleave, protocol, rate, report, require, run_bench
from zoo.errors import invalid

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WIDTH = 512
K = 10
WANTED = 1 / 1.3  # at most 1.3 times as long as the product
LOOP_QUERIES = 50  # that cn-clip's loop is timed on: it takes near a minute for 5,000


def main(argv: list[str]) -> int:
    """Run ``bench eval``."""
    return run_bench("eval", measure, argv)


def measure(*, queries: int = 5000, images: int = 30000, blocks: int = 5, output: str | None = None) -> None:
    """Measure the queries a second of the exact ranking, in fp32 and 512 dimensions.

    The ten best images, and the rank of the first relevant one, against the matrix product alone, faiss and cn-clip's
    published loop. About a minute.

    Args:
        queries: Queries.
        images: Images of the gallery, at least 11.
        blocks: Blocks of each contender.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: The gallery is too small, or faiss is not installed.
    """
    if images <= K:
        raise invalid("--images", images, f"give {K + 1} or more, for the {K} best are looked for")
    require({"faiss": "faiss-cpu"}, bench="bench eval")
    import faiss
    import torch
    from torch.nn.functional import normalize

    from zoo.tasks.retrieval.ranking import QUERIES_PER_CHUNK, first_positive_ranks, top_k

    generator = torch.Generator().manual_seed(0)
    query, gallery = (normalize(torch.randn(count, WIDTH, generator=generator), dim=1) for count in (queries, images))
    positives = torch.arange(queries + 1), torch.randint(images, (queries,), generator=generator)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(gallery.numpy())
    faiss.omp_set_num_threads(torch.get_num_threads())
    part = min(queries, LOOP_QUERIES)
    rates = interleave(
        {
            "top 10": rate(lambda: len(top_k(query, gallery, K)[0])),
            f"product in chunks of {QUERIES_PER_CHUNK}": rate(lambda: chunked(query, gallery, QUERIES_PER_CHUNK)),
            "first true rank": rate(lambda: len(first_positive_ranks(query, gallery, positives))),
            "product whole": rate(lambda: len(query @ gallery.T)),
            "faiss flat": rate(lambda: len(index.search(query.numpy(), K)[0])),
            "cn-clip's loop": rate(lambda: published_loop(query[:part], gallery.numpy())),
        },
        blocks=blocks,
        what="bench eval",
    )
    product = max(
        (name for name in rates if name.startswith("product")), key=lambda name: sorted(rates[name])[blocks // 2]
    )
    unit = "queries/s"
    rows = [
        Row("top 10", unit, rates, "top 10", product, WANTED),
        Row("first true rank", unit, rates, "first true rank", product, WANTED),
        Row("top 10", unit, rates, "top 10", "faiss flat"),
        Row("top 10", unit, rates, "top 10", "cn-clip's loop"),
    ]
    metadata = protocol(
        packages=("faiss-cpu", "numpy"),
        sizes=f"{queries} queries × {images} images × {WIDTH}, random unit vectors, fp32",
        threads=torch.get_num_threads(),
        product="the faster of: in the same chunks into one buffer; whole",
        loop=f"cn-clip's make_topk_predictions, after its text: {part} queries timed, the rate taken for all",
        blocks=f"{blocks} of all queries each",
    )
    report("eval", rows, metadata, output=output)


def chunked(queries: "Tensor", gallery: "Tensor", size: int) -> int:
    """Compute the bare product in chunks, into one buffer; return the number of queries."""
    import torch

    buffer = torch.empty(min(size, len(queries)), len(gallery))
    for start in range(0, len(queries), size):
        chunk = queries[start : start + size]
        torch.mm(chunk, gallery.T, out=buffer[: len(chunk)])
    return len(queries)


def published_loop(queries: "Tensor", gallery: "np.ndarray", size: int = 32768) -> int:
    """Do what cn-clip's script does: one query at a time, its scores sorted in Python; return the number of queries."""
    import torch

    for query in queries:
        scored: list[tuple[int, float]] = []
        for start in range(0, len(gallery), size):
            scores = query[None] @ torch.from_numpy(gallery[start : start + size]).T  # [1, size]
            scored += zip(range(start, start + scores.shape[1]), scores[0].tolist(), strict=True)
        sorted(scored, key=lambda pair: pair[1], reverse=True)[:K]
    return len(queries)
