import numpy as np
import pytest
from PIL import Image

from zoo.__main__ import main
from zoo.tasks.retrieval.search import duplicates
from zoo.tasks.retrieval.search.duplicates import (
    FEW_BITS,
    connected,
    find_duplicates,
    same_values,
    similar_hashes,
    similar_vectors,
)
from zoo.tasks.retrieval.search.embeddings import Embeddings


def test_the_same_values_are_connected():
    assert list(same_values(["a", "b", "a", "a"])) == [(0, 2), (0, 3)]


def test_similar_hashes_are_those_of_every_pair_compared():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 200, dtype=np.uint64)
    near = hashes[:40].copy()
    for place, flips in enumerate(rng.integers(0, 8, 40)):
        for bit in rng.choice(64, flips, replace=False):
            near[place] ^= np.uint64(1) << np.uint64(bit)
    every = np.concatenate([hashes, near])
    expected = {
        (a, b)
        for a in range(len(every))
        for b in range(a + 1, len(every))
        if (int(every[a]) ^ int(every[b])).bit_count() <= FEW_BITS
    }
    assert {tuple(sorted(pair)) for pair in similar_hashes(every)} == expected
    assert len(expected) > 10


def test_similar_vectors_are_those_of_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS", 7)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 8)).astype(np.float32)
    vectors[40:] = vectors[:10] + 0.1 * rng.standard_normal((10, 8))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = {(a, b) for a, b in np.argwhere(unit @ unit.T >= 0.95).tolist() if a < b}
    assert {tuple(sorted(pair)) for pair in similar_vectors(vectors, 0.95)} == expected
    assert len(expected) >= 8


def test_groups_are_what_is_connected():
    assert connected(6, [(4, 5), (0, 2), (2, 1)]) == [[0, 1, 2], [4, 5]]
    assert connected(3, []) == []


@pytest.fixture
def embeddings(shop, matcher, tmp_path):
    images = shop / "images"
    (images / "copy.png").write_bytes((images / "02.png").read_bytes())
    Image.open(images / "02.png").save(images / "alike.bmp")  # the same pixels in other bytes
    assert main(["embed", matcher, str(images), str(tmp_path / "out")]) == 0
    return Embeddings(tmp_path / "out")


def test_copies_are_told_by_the_surest_kind_and_once(embeddings):
    found = [(group["kind"], sorted(group["ids"])) for group in find_duplicates(embeddings, similar=0.9999)]
    assert found[0] == ("content", ["02.png", "copy.png"])
    assert any({"02.png", "alike.bmp", "copy.png"} <= set(ids) for kind, ids in found if kind == "perceptual")
    groups = [tuple(ids) for _, ids in found]
    assert len(groups) == len(set(groups))
