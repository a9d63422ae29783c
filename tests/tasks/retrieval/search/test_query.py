from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import UserError
from zoo.tasks.retrieval.search.contracts import Found
from zoo.tasks.retrieval.search.query import FUSED, MOST, Query, fuse, query_vector, rerank, search

AXES = {"红": [1.0, 0, 0], "蓝": [0, 1.0, 0], "裙": [0, 0, 1.0]}


class Encoder:
    """Texts and images of three axes."""

    width = 3
    fingerprint = "fake"

    @staticmethod
    def prepare(image):
        return image

    @staticmethod
    def encode_texts(texts):
        return np.array([AXES[text] for text in texts], np.float32)

    @staticmethod
    def encode_squares(squares):
        return np.array([AXES["红" if square[0, 0, 0] else "蓝"] for square in squares], np.float32)


class Engine:
    """Remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def vectors(self, ids):
        return {id_: np.array(AXES["裙"], np.float32) for id_ in ids if id_ == "known"}

    def search(self, **asked):
        self.asked.append(asked)
        return [found(id_) for id_ in ("abc" if asked.get("text") is None else "cda")]


def found(id_, score=0.0):
    return Found(id_, score, "", f"{id_}.png", {})


RED = np.full((4, 4, 3), 255, np.uint8)


@pytest.mark.parametrize(
    ("query", "vector"),
    [
        (Query(text="红"), [1, 0, 0]),
        (Query(image=RED), [1, 0, 0]),
        (Query(like="known"), [0, 0, 1]),
        (Query(text="蓝", image=RED), [0.5, 0.5, 0]),
        (Query(text="蓝", image=RED, like="known"), [1, 1, 1]),
        (Query(text="红", minus="蓝"), [1, -0.5, 0]),
    ],
)
def test_the_vector_of_a_query(query, vector):
    expected = np.array(vector) / np.linalg.norm(vector)
    got = query_vector(Engine(), Encoder, query, Encoder.encode_texts)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert got.dtype == np.float32


def test_what_is_asked_of_the_engine():
    engine = Engine()
    assert [each.id for each in search(engine, Encoder, Query(text="红", k=2))] == ["a", "b", "c"]
    search(engine, Encoder, Query(text="红", by="text"))
    vector, text = engine.asked
    np.testing.assert_array_equal(vector["vector"], AXES["红"])
    assert (vector["k"], text["text"], text["k"]) == (2, "红", 20)
    assert "vector" not in text


def test_hybrid_fuses_deep_rankings_and_cuts_then():
    engine = Engine()
    best = search(engine, Encoder, Query(text="红", k=2, by="hybrid"))
    assert [asked["k"] for asked in engine.asked] == [FUSED, FUSED]
    assert [each.id for each in best] == ["a", "c"]
    assert best[0].score == 1 / 61 + 1 / 63


def test_fusing_sums_reciprocal_ranks():
    fused = fuse([[found("a"), found("b")], [found("b"), found("c")]])
    assert [(each.id, each.score) for each in fused] == [("b", 1 / 62 + 1 / 61), ("a", 1 / 61), ("c", 1 / 62)]
    assert fuse([[], []]) == []


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({}, "query"),
        ({"minus": "红"}, "query"),
        ({"by": "text"}, "query"),
        ({"text": "红", "image": RED, "by": "text"}, "by"),
        ({"text": "红", "minus": "蓝", "by": "text"}, "by"),
        ({"text": "红", "like": "known", "by": "text"}, "by"),
        ({"image": RED, "by": "hybrid"}, "query"),
        ({"text": "红", "k": 0}, "k"),
        ({"text": "红", "k": MOST + 1}, "k"),
    ],
)
def test_what_is_no_query(options, argument):
    with pytest.raises(UserError) as error:
        Query(**options)
    assert error.value.argument == argument


def test_a_product_to_be_like_that_is_not_there():
    with pytest.raises(UserError) as error:
        search(Engine(), Encoder, Query(like="unknown"))
    assert (error.value.argument, error.value.value) == ("like", "unknown")


def test_reranking_orders_the_first_and_keeps_the_rest(tmp_path):
    sizes = {"a": 1, "b": 3, "c": 2, "d": 9}
    for name, size in sizes.items():
        Image.new("RGB", (size, size)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_text("no image")

    def read(image):
        return (tmp_path / image).read_bytes()

    def score(text, images):
        assert text == "红"
        return torch.tensor([float(image.width) for image in images])

    before = [found("a"), found("broken"), found("b"), found("c"), found("d")]
    after = rerank(before, "红", SimpleNamespace(score=score), SimpleNamespace(read=read), top=4)
    assert [(each.id, each.score) for each in after] == [("b", 3), ("c", 2), ("a", 1), ("broken", 0), ("d", 0)]
    with pytest.raises(UserError):
        rerank(before, "", SimpleNamespace(score=score), SimpleNamespace(read=read), top=4)
