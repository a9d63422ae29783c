"""What LanceDB alone has: an index that is built, fragments and versions, a process that is killed, a full disk."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from zoo.errors import UserError
from zoo.tasks.retrieval.search import lance
from zoo.tasks.retrieval.search.contracts import Description, Product
from zoo.tasks.retrieval.search.engines import create_engine, open_engine
from zoo.tasks.retrieval.search.filters import Comparison

WIDTH = 16
FIELDS = {"price": "number"}
DESCRIPTION = Description("runs/a", "f1", WIDTH, "images", FIELDS)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An empty engine that builds its index from 1,000 rows on and keeps old versions for no time."""
    monkeypatch.setattr(lance, "EXACT_ROWS", 1000)
    monkeypatch.setattr(lance, "PARTITION_ROWS", 50)
    monkeypatch.setattr(lance, "GRACE", timedelta(0))
    return create_engine(tmp_path / "shop.lance", DESCRIPTION)


def products(start, stop):
    """Products of 40 clusters, prices from 0 to 99."""
    centres = np.random.default_rng(0).normal(size=(40, WIDTH))
    vectors = np.stack(
        [centres[i % 40] + 0.5 * np.random.default_rng(i).normal(size=WIDTH) for i in range(start, stop)]
    )
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return [
        Product(str(i), vector, "红色连衣裙" if i % 2 else "皮鞋", f"{i}.jpg", {"price": i % 100}, f"digest {i}")
        for i, vector in enumerate(vectors, start)
    ]


def vector_indices(engine):
    return [index for index in engine.table.list_indices() if index.columns == ["vector"]]


def recall(engine, rows, where=None):
    """The share of each row's ten nearest that it finds."""
    allowed = [one for one in rows if where is None or one.metadata["price"] < where.value]
    vectors = np.stack([one.vector for one in allowed])
    hits = 0
    for query in rows[::100]:
        exact = {allowed[i].id for i in np.argsort(-(vectors @ query.vector))[:10]}
        hits += len(exact & {one.id for one in engine.search(vector=query.vector, where=where, k=10)})
    return hits / (10 * len(rows[::100]))


def test_an_index_of_vectors_finds_what_is_near_and_what_came_later(engine):
    first = products(0, 2000)
    engine.upsert(first[:900])
    engine.optimize()
    assert not vector_indices(engine)
    engine.upsert(first[900:])
    engine.optimize()
    assert [index.index_type for index in vector_indices(engine)] == ["IvfRq"]
    assert recall(engine, first) > 0.97
    assert recall(engine, first, Comparison("price", "<", 3.0)) > 0.97
    later = products(2000, 2100)
    engine.upsert(later)
    engine.delete([one.id for one in first[:50]])
    for one in later[::10]:
        found = engine.search(vector=one.vector, k=1)[0]
        assert (found.id, found.score) == (one.id, pytest.approx(1, abs=1e-5))
    for one in first[:50:10]:
        assert engine.search(vector=one.vector, k=1)[0].id != one.id
    moved = replace(first[60], vector=-first[60].vector, title="凉鞋")
    engine.upsert([moved])
    for _ in range(2):
        assert engine.search(vector=moved.vector, k=1)[0].id == moved.id
        assert [one.id for one in engine.search(text="凉鞋")] == [moved.id]
        assert engine.count() == 2050
        engine.optimize()


def test_many_more_rows_are_partitioned_anew(engine):
    engine.upsert(products(0, 1000))
    engine.optimize()
    engine.upsert(products(1000, 3999))
    engine.optimize()
    assert [index.name for index in vector_indices(engine)] == ["vector_1000"]
    engine.upsert(products(3999, 4000))
    engine.optimize()
    assert [index.name for index in vector_indices(engine)] == ["vector_4000"]
    assert recall(engine, products(0, 4000)) > 0.97


def test_fragments_versions_and_files_do_not_pile_up(engine):
    engine.upsert(products(0, 1000))
    sizes = []
    for start in range(1000, 1300, 25):
        for i in range(start, start + 25, 5):
            engine.upsert(products(i, i + 5))
        engine.optimize()
        fragments = engine.table.stats()["fragment_stats"]["num_fragments"]
        segments = sum(index.num_segments for index in vector_indices(engine))
        files = sum(len(names) for _, _, names in os.walk(engine.address))
        sizes.append((fragments, segments, len(engine.table.list_versions()), files))
    fragments, segments, versions, files = np.max(sizes, axis=0)
    assert fragments <= lance.SEGMENTS + 1
    assert segments <= lance.SEGMENTS
    assert versions < 60
    assert files < 250
    assert engine.count() == 1300


def test_readers_do_not_notice_what_is_optimized(engine, monkeypatch):
    monkeypatch.setattr(lance, "GRACE", timedelta(seconds=1))
    rows = products(0, 1500)
    engine.upsert(rows)
    done, errors, searches = threading.Event(), [], [0] * 3

    def read(reader):
        own = open_engine(engine.address)
        while not done.is_set():
            one = rows[searches[reader] % len(rows)]
            try:
                if own.search(vector=one.vector, k=1)[0].id != one.id or own.count() < len(rows):
                    errors.append(one.id)
                own.search(text="皮鞋", k=3)
            except Exception as error:
                errors.append(error)
            searches[reader] += 1

    readers = [threading.Thread(target=read, args=(i,)) for i in range(len(searches))]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 4
    start = 1500
    while time.monotonic() < end:
        engine.upsert(products(start, start + 20))
        engine.optimize()
        start += 20
    done.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert min(searches) > 3
    assert len(engine.table.list_versions()) < 60


def run(code, *argv):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_lance as t\n" + code
    return subprocess.Popen([sys.executable, "-c", code, os.path.dirname(__file__), *map(str, argv)])


def test_a_writer_that_is_killed_leaves_whole_writes(engine):
    code = (
        "engine = t.open_engine(sys.argv[2])\n"
        "for start in range(0, 100_000, 200):\n"
        "    engine.upsert(t.products(start, start + 200)); engine.optimize()"
    )
    for pause in (0.1, 0.25):
        writer = run(code, engine.address)
        while engine.count() < 400:
            time.sleep(0.05)
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        count = engine.count()
        assert count % 200 == 0
        assert {id for id, _ in engine.digests()} == {str(i) for i in range(count)}
        engine.upsert(products(0, 10))
        engine.optimize()
        assert engine.count() == count
        engine.delete([str(i) for i in range(count)])


def test_a_full_disk_is_told_and_leaves_the_index_as_it_was(engine):
    engine.upsert(products(0, 200))
    code = (
        "import resource, signal\n"
        "engine = t.open_engine(sys.argv[2])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: engine.upsert(t.products(0, 5000)); sys.exit('written')\n"
        "except t.UserError as error: sys.exit(str(error) != sys.argv[2] + ': File too large (os error 27)')"
    )
    assert run(code, engine.address).wait() == 0
    assert open_engine(engine.address).count() == 200


def test_a_folder_of_other_things_is_no_index(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    for use in (open_engine, lambda address: create_engine(address, DESCRIPTION)):
        with pytest.raises(UserError) as caught:
            use(tmp_path)
        assert (caught.value.argument, caught.value.value) == ("engine", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("content", [b"", b"x" * 1000])
def test_a_damaged_index_is_told(engine, content):
    engine.upsert(products(0, 10))
    for path in sorted((lance.Path(engine.address) / "products.lance" / "_versions").iterdir()):
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        open_engine(engine.address)
    assert (caught.value.argument, caught.value.value) == ("engine", engine.address)


def test_an_index_of_a_later_format_is_refused(tmp_path):
    create_engine(tmp_path / "shop.lance", replace(DESCRIPTION, format=2))
    with pytest.raises(UserError) as caught:
        open_engine(tmp_path / "shop.lance")
    assert caught.value.valid == "an index of format 1"
