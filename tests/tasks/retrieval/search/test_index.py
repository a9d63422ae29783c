import contextlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny
from PIL import Image

from zoo.__main__ import main
from zoo.data.images import decode
from zoo.errors import UserError
from zoo.io import write_json_lines
from zoo.tasks.retrieval.search.embeddings import Embeddings, as_rows
from zoo.tasks.retrieval.search.engines import open_engine
from zoo.tasks.retrieval.search.evaluation import Labelled, read_queries, scores_of
from zoo.tasks.retrieval.search.images import ProductImages
from zoo.tasks.retrieval.search.index import agreement, exact_ids, products_of


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="session")
def embedded(tmp_path_factory, matcher):
    """The test split of tiny MUGE files with a title each, embedded; read only."""
    root = tiny.write_muge(tmp_path_factory.mktemp("muge"))
    names = {2000 + 1000 * n + place: None for n in (0, 1) for place in range(12)}
    for split, first in (("valid", 2000), ("test", 3000)):
        records = [
            {
                "image_id": first + place,
                "title": f"{colour}{shape}新款",
                "price": float(place),
                "attributes": {"颜色": colour},
            }
            for place, (colour, shape) in enumerate((c, s) for c in list(tiny.COLOURS)[-3:] for s in tiny.SHAPES)
        ]
        write_json_lines(root / f"catalogue_{split}.jsonl", records)
    out = tmp_path_factory.mktemp("embedded") / "shop"
    assert len(names) == 24
    assert run("embed", matcher, root, out, "--split", "test") == 0
    return out


@pytest.fixture
def shop_index(embedded, tmp_path, capsys):
    """Copies of the embeddings and an index of them: their paths."""
    shutil.copytree(embedded, tmp_path / "shop")
    assert run("index", tmp_path / "shop") == 0
    printed = capsys.readouterr().out
    assert "12 products: 12 written, 0 removed" in printed
    assert "Of the exact 10 best, 100.0 % are found" in printed
    return tmp_path / "shop", str(tmp_path / "shop.lance")


def test_an_index_is_brought_up_to_date(shop_index, capsys):
    folder, address = shop_index
    assert run("index", folder) == 0
    assert "12 products: 0 written, 0 removed" in capsys.readouterr().out
    embeddings = Embeddings(folder)
    rows = {id_: row for table in embeddings.tables() for id_, row in as_rows(table).items()}
    del rows["3000"]
    rows["3001"].item.metadata["price"] = 99.0
    rows["3002"].image_vector = None
    rows["3002"].error = "cannot be read"
    embeddings.write(0, list(rows.values()))
    assert run("index", folder) == 0
    assert "10 products: 1 written, 2 removed, 1 without an image" in capsys.readouterr().out
    engine = open_engine(address)
    assert engine.get(["3000", "3001", "3002"]).keys() == {"3001"}
    assert engine.get(["3001"])["3001"].metadata["price"] == 99.0


def test_titles_have_a_share_in_the_vectors(shop_index, tmp_path, capsys):
    folder, _ = shop_index
    assert run("index", folder, "--engine", tmp_path / "both.lance", "--title_weight", "0.25") == 0
    rows = {id_: row for table in Embeddings(folder).tables() for id_, row in as_rows(table).items()}
    own = 0.75 * rows["3003"].image_vector.astype(np.float32) + 0.25 * rows["3003"].title_vector.astype(np.float32)
    found = open_engine(tmp_path / "both.lance").vectors(["3003"])["3003"]
    np.testing.assert_allclose(found, own / np.linalg.norm(own), atol=1e-6)
    assert run("index", folder, "--engine", tmp_path / "both.lance") == 1
    assert "--title_weight" in capsys.readouterr().err


def test_another_models_vectors_are_refused(shop_index, tmp_path, capsys):
    folder, address = shop_index
    other = tiny.write_matcher(tmp_path / "other.ckpt", seed=1)
    assert run("embed", other, folder.parent / "photos", tmp_path / "theirs") == 1
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(tiny.draw(1, "红色", "方块"))
    assert run("embed", other, tmp_path / "photos", tmp_path / "theirs") == 0
    capsys.readouterr()
    assert run("index", tmp_path / "theirs", "--engine", address) == 1
    assert "fingerprint" in capsys.readouterr().err
    assert run("search", address, "红色", "--model", other) == 1
    assert "--model" in capsys.readouterr().err
    assert open_engine(address).count() == 12


def test_the_exact_ranking_is_that_of_all_vectors(shop_index):
    folder, address = shop_index
    embeddings = Embeddings(folder)
    products = [product for table in embeddings.tables() for product in products_of(table, 0.0)]
    probes = np.stack([product.vector for product in products[:3]])
    scores = probes @ np.stack([product.vector for product in products]).T
    best = [[products[place].id for place in row] for row in np.argsort(-scores, axis=1, kind="stable")[:, :5]]
    assert exact_ids(open_engine(address), embeddings, probes, 5) == best


def test_an_index_that_finds_few_is_told_of(shop_index, monkeypatch):
    folder, address = shop_index
    engine = open_engine(address)
    monkeypatch.setattr(type(engine), "search", lambda self, **_: [])
    engine.effort = 2
    assert "0.0 % are found" in agreement(engine, Embeddings(folder))
    assert "--effort 4" in agreement(engine, Embeddings(folder))


@pytest.mark.slow
def test_a_killed_index_goes_on_and_nothing_is_lost_or_twice(shop_index, tmp_path):
    folder, _ = shop_index
    embeddings, address = Embeddings(folder), str(tmp_path / "killed.lance")
    (table,) = embeddings.tables()
    rows = [*as_rows(table).values()]
    copies = [replace(row, item=row.item._replace(id=f"{copy}-{row.item.id}")) for copy in range(40) for row in rows]
    embeddings.write(0, copies)
    script = (
        "import sys, zoo.tasks.retrieval.search.index as i; i.ROWS = 8;"
        " from zoo.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", script, "index", str(folder), "--engine", address]
    killed, there = 0, 0
    for _ in range(3):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = there
        while process.poll() is None and there < begun + 80:
            with contextlib.suppress(UserError):  # it is not made yet
                there = open_engine(address).count()
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    assert 0 < open_engine(address).count() < len(copies)
    assert subprocess.run(words, check=False).returncode == 0
    (table,) = embeddings.tables()
    wanted = [(product.id, product.digest) for product in products_of(table, 0.0)]
    assert sorted(open_engine(address).digests()) == sorted(wanted)


def test_duplicates_are_written(shop_index, tmp_path, capsys):
    folder, _ = shop_index
    assert run("index", folder, "--duplicates", tmp_path / "twice.jsonl", "--similar", "0") == 0
    groups = [json.loads(line) for line in (tmp_path / "twice.jsonl").read_text().splitlines()]
    assert {"kind": "cosine", "ids": [str(3000 + place) for place in range(12)]} in [
        {**group, "ids": sorted(group["ids"])} for group in groups
    ]


def lines(capsys):
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_searching_by_words_images_and_both(shop_index, matcher, tmp_path, capsys):
    import zoo

    _, address = shop_index
    folder = shop_index[0]
    rows = {id_: row for table in Embeddings(folder).tables() for id_, row in as_rows(table).items()}
    texts = zoo.load(matcher).encode_text(["黑色方块"]).numpy()[0]
    scores = {id_: float(row.image_vector.astype(np.float32) @ texts) for id_, row in rows.items()}
    assert run("search", address, "黑色方块", "--k", "5") == 0
    found = lines(capsys)
    assert [id_ for _, id_, _ in found] == sorted(scores, key=lambda id_: -scores[id_])[:5]
    assert float(found[0][0]) == pytest.approx(max(scores.values()), abs=2e-3)

    (tmp_path / "q.png").write_bytes(
        tiny.draw(3005, *list((c, s) for c in list(tiny.COLOURS)[-3:] for s in tiny.SHAPES)[5])
    )
    assert run("search", address, "--image", tmp_path / "q.png", "--k", "1") == 0
    assert lines(capsys)[0][1] == "3005"
    assert run("search", address, "--like", "3007", "--k", "1") == 0
    assert lines(capsys)[0][1] == "3007"
    assert run("search", address, "黑色方块", "--by", "text", "--k", "1") == 0
    assert "黑色方块" in lines(capsys)[0][2]
    assert run("search", address, "黑色", "--where", "颜色 = '黑色' and price < 6", "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["metadata"]["颜色"] for record in records} == {"黑色"}
    assert all(record["metadata"]["price"] < 6 for record in records)
    assert run("search", address, "黑色", "--where", "price > 1e9") == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Nothing is found" in printed.err


def test_another_model_orders_the_first_anew(shop_index, tmp_path, capsys):
    import zoo

    _, address = shop_index
    other = tiny.write_matcher(tmp_path / "other.ckpt", seed=1)
    assert run("search", address, "黑色方块", "--k", "12") == 0
    before = [id_ for _, id_, _ in lines(capsys)]
    assert run("search", address, "黑色方块", "--k", "12", "--rerank", other, "--rerank_top", "5") == 0
    after = lines(capsys)
    engine, images = open_engine(address), ProductImages(open_engine(address).description.images)
    decoded = [decode(images.read(engine.get([id_])[id_].image)) for id_ in before[:5]]
    task = zoo.load(other)
    scores = dict(zip(before, (task.encode_image(decoded) @ task.encode_text(["黑色方块"])[0]).tolist(), strict=False))
    assert [id_ for _, id_, _ in after] == [*sorted(before[:5], key=lambda id_: -scores[id_]), *before[5:]]
    assert float(after[0][0]) == pytest.approx(max(scores.values()), abs=1e-4)


def test_an_image_grid_of_what_was_found(shop_index, tmp_path):
    _, address = shop_index
    assert run("search", address, "黑色", "--k", "12", "--grid", tmp_path / "grid.png") == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 1000


def test_an_image_that_is_gone_is_not_in_the_grid(shop_index, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    words = ["黑色", "--images", tmp_path / "nothing", "--grid", tmp_path / "grid.png"]
    assert run("search", shop_index[1], *words) == 0
    assert capsys.readouterr().err.count("is not in the grid") == 12
    assert (tmp_path / "grid.png").is_file()


@pytest.mark.parametrize("name", ["grid", "grid.txt", "folder.png"])
def test_a_grid_that_cannot_be_written(shop_index, tmp_path, capsys, name):
    (tmp_path / "folder.png").mkdir()
    assert run("search", shop_index[1], "黑色", "--grid", tmp_path / name) == 1
    assert "--grid" in capsys.readouterr().err


def test_duplicates_that_cannot_be_written(shop_index, tmp_path, capsys):
    assert run("index", shop_index[0], "--duplicates", tmp_path) == 1
    assert "--duplicates" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--minus", "红色"],
        ["红色", "--k", "0"],
        ["红色", "--where", "colour = 'red'"],
        ["红色", "--image", "nowhere.png"],
        ["--like", "nobody"],
        ["红色", "--rerank_top", "0"],
        ["红色", "--effort", "0"],
        ["红色", "--evaluate", "queries.jsonl"],
        ["红色", "--by", "text", "--minus", "蓝色"],
        ["红色", "--images", "nowhere", "--grid", "grid.png"],
    ],
)
def test_a_search_that_cannot_be(shop_index, words, capsys):
    assert run("search", shop_index[1], *words) == 1
    assert "zoo search: " in capsys.readouterr().err


def test_searches_are_compared_on_labelled_queries(shop_index, muge_root, capsys):
    _, address = shop_index
    answers = muge_root / "Multimodal_Retrieval" / "MR_test_answers.jsonl"
    assert run("search", address, "--evaluate", answers, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["queries"], scores["products"], scores["unknown"]) == (15, 12, 0)
    assert list(scores["rankings"]) == ["vector", "text", "hybrid"]
    assert scores["rankings"]["text"]["recall@1"] == 100  # the titles say it
    assert run("search", address, "--evaluate", answers) == 0
    assert "15 queries, 12 products" in capsys.readouterr().out


def test_the_scores_of_rankings():
    queries = [Labelled("a", frozenset("x")), Labelled("b", frozenset("yz")), Labelled("c", frozenset("w"))]
    scores = scores_of([["x", "y"], ["x", "y", "z"], []], queries)
    assert (scores["recall@1"], scores["recall@5"]) == (33.33, 66.67)
    assert scores["mean_recall"] == pytest.approx((100 / 3 + 200 / 3 + 200 / 3) / 3, abs=0.01)
    second = (1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert scores["ndcg@10"] == pytest.approx(100 * (1 + second + 0) / 3, abs=0.01)


@pytest.mark.parametrize(("text", "ids"), [("", [1]), ("a", []), ("a", 1)])
def test_queries_that_are_none(tmp_path, text, ids):
    write_json_lines(tmp_path / "queries.jsonl", [{"query_text": text, "item_ids": ids}])
    with pytest.raises(UserError):
        read_queries(str(tmp_path / "queries.jsonl"))
    write_json_lines(tmp_path / "queries.jsonl", [{"words": "a"}])
    with pytest.raises(UserError) as error:
        read_queries(str(tmp_path / "queries.jsonl"))
    assert error.value.argument == "--evaluate"
