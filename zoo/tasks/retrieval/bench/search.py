"""``bench search``: an index of products against the exact ranking: searches a second, recall, time to build, sizes."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.bench.harness import (
    Row,
    in_a_new_process,
    interleave,
    peak_memory,
    protocol,
    rate,
    report,
    run_bench,
)
from zoo.errors import invalid

if TYPE_CHECKING:
    import numpy as np

    from zoo.tasks.retrieval.search.contracts import Engine
    from zoo.tasks.retrieval.search.filters import Condition

WIDTH = 512
K = 10
CLUSTERS = 4000
SPREAD = 0.7  # of a cluster, against the length of its centre: 0.67 is the cosine of two of its vectors
CATEGORIES = 20
BATCH = 20_000  # products of an upsert
CLIENTS = 20


def main(argv: list[str]) -> int:
    """Run ``bench search``."""
    return run_bench("search", measure, argv)


def measure(*, products: int = 1_000_000, queries: int = 200, blocks: int = 3, output: str | None = None) -> None:
    """Measure the searches a second of an index, plain, with a condition on 5 % of the products, and by 20 clients.

    The vectors lie in clusters, the condition does not follow them. Their exact ranking, one query at a time, is what
    it is held against, and what recall is counted by. A million products take about ten minutes, 5 GB on the disk and
    8 GB of memory.

    Args:
        products: Products, at least 200.
        queries: Queries.
        blocks: Blocks of each contender.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: There are too few products.
    """
    if products < K * CATEGORIES:
        raise invalid("--products", products, f"give {K * CATEGORIES} or more")
    import torch

    from zoo.tasks.retrieval.ranking import top_k
    from zoo.tasks.retrieval.search.filters import Comparison

    condition = Comparison("category", "=", "0")
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder, "bench.lance"))
        gallery, asked = clustered(products, 0), clustered(queries, 1)
        engine, sizes = build(address, gallery)
        meeting = torch.arange(0, products, CATEGORIES)
        exact = {
            "plain": (None, top_k(torch.from_numpy(asked), torch.from_numpy(gallery), K)[1].tolist()),
            "with a condition": (
                condition,
                meeting[top_k(torch.from_numpy(asked), torch.from_numpy(gallery)[meeting], K)[1]].tolist(),
            ),
        }
        sizes |= in_a_new_process(searched, address, asked, exact)
        gallery_tensor, asked_tensor = torch.from_numpy(gallery), torch.from_numpy(asked)

        def clients() -> int:
            with ThreadPoolExecutor(CLIENTS) as pool:
                return len(list(pool.map(lambda query: engine.search(vector=query, k=K), asked)))

        rates = interleave(
            {
                "index": rate(lambda: len([engine.search(vector=query, k=K) for query in asked])),
                "index, condition": rate(
                    lambda: len([engine.search(vector=query, where=condition, k=K) for query in asked])
                ),
                f"index, {CLIENTS} clients": rate(clients),
                "exact": rate(lambda: len([top_k(query[None], gallery_tensor, K) for query in asked_tensor])),
            },
            blocks=blocks,
            what="bench search",
        )
    table = [Row("search", "queries/s", rates, name, "exact") for name in rates if name != "exact"]
    metadata = protocol(
        packages=("lancedb", "numpy"),
        sizes=f"{products:,} products × {WIDTH} in {CLUSTERS:,} clusters, {queries} queries",
        threads=torch.get_num_threads(),
        **sizes,
        blocks=f"{blocks} of all queries each",
    )
    report("search", table, metadata, output=output)


def clustered(count: int, seed: int) -> "np.ndarray":
    """Draw unit vectors ``[count, WIDTH] float32`` of the same clusters for every seed; some clusters are larger."""
    import numpy as np

    centres = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH)) / WIDTH**0.5
    shares = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
    generator = np.random.default_rng([1, seed])
    vectors = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, BATCH):
        part = vectors[start : start + BATCH]
        noise = generator.standard_normal(part.shape, np.float32) * (SPREAD / WIDTH**0.5)
        part[:] = centres[generator.choice(CLUSTERS, len(part), p=shares / shares.sum())] + noise
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def build(address: str, gallery: "np.ndarray") -> "tuple[Engine, dict[str, Any]]":
    """Make an index of vectors; return it, and how long that took and how large it is."""
    from zoo.tasks.retrieval.search.contracts import Description, Product
    from zoo.tasks.retrieval.search.engines import create_engine

    engine = create_engine(address, Description("bench", "bench", WIDTH, "", {"category": "text"}))
    start = time.perf_counter()
    for first in range(0, len(gallery), BATCH):
        engine.upsert(
            [
                Product(str(i), vector, f"商品 {i}", f"{i}.jpg", {"category": str(i % CATEGORIES)}, "")
                for i, vector in enumerate(gallery[first : first + BATCH], first)
            ]
        )
    written = time.perf_counter()
    engine.optimize()
    optimized = time.perf_counter()
    size = sum(path.stat().st_size for path in Path(address).rglob("*") if path.is_file())
    return engine, {
        "build": f"{written - start:.0f} s to write, {optimized - written:.0f} s to optimize",
        "disk": f"{size / 2**20:,.0f} MiB, {size / len(gallery) / WIDTH / 4:.2f} times the vectors",
    }


def searched(
    address: str, queries: "np.ndarray", exact: "dict[str, tuple[Condition | None, list[list[int]]]]"
) -> dict[str, str]:
    """Search for each query twice; return recall, times of the second searches, and the memory of this process."""
    import numpy as np

    from zoo.tasks.retrieval.search.engines import open_engine

    engine = open_engine(address)
    said = {}
    for name, (where, best) in exact.items():
        times, hits = [], 0
        for query, wanted in [*zip(queries, best, strict=True)] * 2:
            start, processor = time.perf_counter(), time.process_time()
            found = engine.search(vector=query, where=where, k=K)
            times.append((time.perf_counter() - start, time.process_time() - processor))
            hits += len({int(one.id) for one in found} & set(wanted))
        clock, own = 1e3 * np.percentile(times[len(queries) :], [50, 99], axis=0).T
        said[name] = (
            f"recall@{K} {hits / K / len(times):.3f}; {clock[0]:.0f} ms (p99 {clock[1]:.0f}) on the clock,"
            f" {own[0]:.0f} ms (p99 {own[1]:.0f}) of the processor"
        )
    return said | {"memory of a process that searches": f"{peak_memory() / 2**20:,.0f} MiB"}
