import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

import zoo
from zoo.__main__ import main
from zoo.errors import UserError
from zoo.tasks.retrieval.search.embed import part_of, perceptual_hash
from zoo.tasks.retrieval.search.embeddings import Embeddings, EmbeddingsMetadata, as_rows


def embed(*words):
    assert main(["embed", *map(str, words)]) == 0


def rows_of(folder):
    """All rows of a folder, by id."""
    return {id_: row for table in Embeddings(folder).tables() for id_, row in as_rows(table).items()}


@pytest.fixture
def small_files(monkeypatch):
    """Four products a file, about."""
    monkeypatch.setattr("zoo.tasks.retrieval.search.embed.PRODUCTS_A_FILE", 4)


def test_the_embeddings_are_the_models(shop, matcher, tmp_path, capsys):
    embed(matcher, shop / "products.jsonl", tmp_path / "out")
    assert "12 products: 12 images and 11 titles embedded" in capsys.readouterr().out
    rows, task = rows_of(tmp_path / "out"), zoo.load(matcher)
    assert sorted(rows) == [f"p{place:02}" for place in range(12)]
    paths = [str(shop / row.item.image) for row in rows.values()]
    images = task.encode_image(paths).numpy()
    for row, image in zip(rows.values(), images, strict=True):
        assert float(row.image_vector.astype(np.float32) @ image) > 0.999  # Pillow's resize and ours differ a little
        assert row.item.metadata["颜色"] in tiny.COLOURS
    titled = [row for row in rows.values() if row.item.title]
    texts = task.encode_text([row.item.title for row in titled]).numpy()
    np.testing.assert_allclose([row.title_vector for row in titled], texts, atol=1e-3)
    assert rows["p00"].title_vector is None


def test_anybody_reads_the_files(shop, matcher, tmp_path):
    from pyarrow import parquet

    embed(matcher, shop / "products.jsonl", tmp_path / "out")
    table = parquet.read_table(tmp_path / "out")
    assert table.num_rows == 12
    assert table["metadata"][3].as_py() == {"price": 30.0, "sold": True, "颜色": "红色"}
    assert str(table.schema.field("image_vector").type) == "fixed_size_list<element: halffloat>[16]"


def test_what_is_there_is_not_embedded_again(shop, matcher, tmp_path, capsys, small_files):
    out = tmp_path / "out"
    embed(matcher, shop / "products.jsonl", out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(before) == 4
    capsys.readouterr()
    embed(matcher, shop / "products.jsonl", out)
    assert "0 images and 0 titles embedded, 12 products were there" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_shop_that_changes(shop, matcher, tmp_path, capsys, small_files):
    out, table = tmp_path / "out", shop / "products.jsonl"
    embed(matcher, table, out)
    old = rows_of(out)
    products = [json.loads(line) for line in table.read_text().splitlines()]
    products[1]["title"] = "另一个标题"
    products[2]["price"] = 99.0
    (shop / "images" / "03.jpg").write_bytes(tiny.draw(50, "紫色", "十字"))  # another image under the same name
    (shop / "images" / "04.png").rename(shop / "images" / "renamed.png")
    products[4]["image"] = "images/renamed.png"
    products[5]["id"] = "new"  # the same image under another id
    del products[6]
    table.write_text("".join(json.dumps(each) + "\n" for each in products))
    capsys.readouterr()
    embed(matcher, table, out)
    assert "1 images and 2 titles embedded, 6 products were there" in capsys.readouterr().out
    new = rows_of(out)
    assert new.keys() == old.keys() - {"p05", "p06"} | {"new"}
    assert new["p02"].item.metadata["price"] == 99.0
    assert (new["p03"].image_vector != old["p03"].image_vector).any()
    assert (new["new"].image_vector == old["p05"].image_vector).all()
    embed(matcher, table, tmp_path / "fresh")
    fresh = rows_of(tmp_path / "fresh")
    for id_, row in fresh.items():
        np.testing.assert_allclose(row.image_vector, new[id_].image_vector, atol=1e-3)
        assert (row.item, row.sha256, row.phash, row.stamp) == (
            new[id_].item,
            new[id_].sha256,
            new[id_].phash,
            new[id_].stamp,
        )


def test_a_new_field_is_in_every_file(shop, matcher, tmp_path, small_files):
    embed(matcher, shop / "images", tmp_path / "out")
    assert not Embeddings(tmp_path / "out").metadata.fields
    table = shop / "images.csv"
    names = sorted(path.name for path in (shop / "images").iterdir())
    table.write_text("image,size\n" + "".join(f"{name},{len(name)}\n" for name in names))
    embed(matcher, table, tmp_path / "out", "--images", shop / "images")
    assert {row.item.metadata["size"] for row in rows_of(tmp_path / "out").values()} == {6.0}


def test_images_that_cannot_be_read_are_listed_and_tried_again(shop, matcher, tmp_path, capsys):
    out, broken, gone = tmp_path / "out", shop / "images" / "02.png", shop / "images" / "03.jpg"
    broken.write_bytes(broken.read_bytes()[:60])
    gone.rename(tmp_path / "aside.jpg")
    embed(matcher, shop / "products.jsonl", out)
    printed = capsys.readouterr()
    assert "10 images and 11 titles embedded" in printed.out
    assert "p02" in printed.err
    assert "p03" in printed.err
    rows = rows_of(out)
    assert rows["p02"].image_vector is None
    assert rows["p02"].error
    broken.write_bytes(tiny.draw(2, "红色", "十字"))
    (tmp_path / "aside.jpg").rename(gone)
    embed(matcher, shop / "products.jsonl", out)
    assert "2 images and 0 titles embedded, 10 products were there" in capsys.readouterr().out
    assert not any(row.error for row in rows_of(out).values())


def test_parts_make_together_what_one_process_makes(shop, matcher, tmp_path, small_files, capsys):
    embed(matcher, shop / "products.jsonl", tmp_path / "one")
    for part in (2, 1, 3):
        if part == 3:
            with pytest.raises(UserError):
                list(Embeddings(tmp_path / "parts").tables())
        embed(matcher, shop / "products.jsonl", tmp_path / "parts", "--part", f"{part}/3")
    one, parts = rows_of(tmp_path / "one"), rows_of(tmp_path / "parts")
    assert list(one) == list(parts)
    for id_, row in one.items():
        assert (row.item, row.sha256) == (parts[id_].item, parts[id_].sha256)
        np.testing.assert_allclose(row.image_vector, parts[id_].image_vector, atol=1e-3)


def test_part(monkeypatch):
    assert part_of("2/8") == (1, 8)
    assert part_of(None) == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert part_of(None) == (3, 4)
    for wrong in ("0/8", "9/8", "1", "a/b", "1/2/3"):
        with pytest.raises(UserError) as error:
            part_of(wrong)
        assert (error.value.argument, error.value.value) == ("--part", wrong)


def test_another_model_is_refused(shop, matcher, tmp_path, capsys):
    embed(matcher, shop / "products.jsonl", tmp_path / "out")
    other = tiny.write_matcher(tmp_path / "other.ckpt", seed=1)
    before = rows_of(tmp_path / "out")
    assert main(["embed", str(other), str(shop / "products.jsonl"), str(tmp_path / "out")]) == 1
    assert matcher in capsys.readouterr().err
    assert rows_of(tmp_path / "out").keys() == before.keys()
    assert main(["embed", matcher, str(shop / "products.jsonl"), str(shop)]) == 1
    assert "holds something else" in capsys.readouterr().err


def test_a_folder_that_another_process_begins_at_the_same_moment_is_no_other_thing(tmp_path):
    metadata = EmbeddingsMetadata("model", "0123", 8, "images", 1, {})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".embeddings.7-0123abcd.json").touch()
    assert Embeddings(tmp_path / "out", metadata).metadata == Embeddings(tmp_path / "out").metadata


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as error:
        Embeddings(tmp_path / "file" / "out", EmbeddingsMetadata("model", "0123", 8, "images", 1, {}))
    assert (error.value.argument, error.value.value) == ("OUT", str(tmp_path / "file" / "out"))


def test_embeddings_that_are_not_whole(shop, matcher, tmp_path, small_files):
    out = tmp_path / "out"
    with pytest.raises(UserError) as error:
        Embeddings(out)
    assert error.value.argument == "embeddings"
    embed(matcher, shop / "products.jsonl", out)
    first = sorted(out.glob("*.parquet"))[0]
    whole = first.read_bytes()
    first.unlink()
    with pytest.raises(UserError):
        list(Embeddings(out).tables())
    first.write_bytes(whole[:100])
    with pytest.raises(UserError):
        list(Embeddings(out).tables())
    first.unlink()
    embed(matcher, shop / "products.jsonl", out)
    assert len(rows_of(out)) == 12


@pytest.mark.slow
def test_a_killed_process_goes_on_and_nothing_is_lost_or_twice(shop, matcher, tmp_path):
    out = tmp_path / "out"
    for copy in range(40):  # 480 products in 120 files
        for path in list((shop / "images").glob("??.*")):
            (path.parent / f"{copy}-{path.name}").write_bytes(tiny.draw(copy, "红色", "圆球") + bytes([copy]))
    script = (
        "import sys, zoo.tasks.retrieval.search.embed as e; e.PRODUCTS_A_FILE = 4;"
        " from zoo.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", script, "embed", matcher, str(shop / "images"), str(out), "--num_workers", "1"]
    killed = 0
    for _ in range(3):
        process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        begun = len(list(out.glob("*.parquet")))
        while process.poll() is None and len(list(out.glob("*.parquet"))) < begun + 10:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    assert subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode == 0
    tables = list(Embeddings(out).tables())
    ids = [id_ for table in tables for id_ in table["id"].to_pylist()]
    assert len(ids) == len(set(ids)) == 492
    assert not any(row.error for row in rows_of(out).values())
    unfinished = [path for path in out.iterdir() if path.name.startswith(".")]
    assert len(unfinished) <= killed  # what was being written when it was killed


def test_a_full_disk_leaves_what_was_there(shop, matcher, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    embed(matcher, shop / "products.jsonl", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    (shop / "images" / "03.jpg").write_bytes(tiny.draw(50, "紫色", "十字"))
    assert main(["embed", matcher, str(shop / "products.jsonl"), str(out)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_images_that_look_the_same_have_nearly_the_same_hash():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    brighter = np.clip(image.astype(int) + 6, 0, 255).astype(np.uint8)
    other = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)

    def apart(a, b):
        return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()

    assert apart(image, brighter) <= 4
    assert apart(image, other) > 16
