import multiprocessing
import os
import pickle

import numpy as np
import pytest

from zoo.data import tsv as tsv_module
from zoo.data.images import ImageError, encode_base64
from zoo.data.tsv import ImageTsv, JoinedTsv, build_index
from zoo.errors import UserError

PICTURES = {30: b"thirty", 10: b"", 20: b"\xfb\xff\xfe"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tsv"


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "data" / "MR_valid_imgs.tsv", PICTURES)


def write(path, pictures, *, end=b"\n", tail=b"\n"):
    path.parent.mkdir(exist_ok=True)
    lines = [b"%s\t%s" % (str(image_id).encode(), encode_base64(data)) for image_id, data in pictures.items()]
    path.write_bytes(end.join(lines) + tail)
    return path


def contents(images):
    return {images.ids[row].item(): images[row] for row in range(len(images))}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n"])
def test_every_row_is_read(tmp_path, end, tail):
    images = ImageTsv(write(tmp_path / "x.tsv", PICTURES, end=end, tail=tail))
    assert len(images) == 3
    assert images.ids.tolist() == [30, 10, 20]
    assert images.ids.dtype == np.int64
    assert contents(images) == PICTURES
    assert [images.row_of(30), images.row_of(10), images.row_of(20)] == [0, 1, 2]
    assert [images.line_number(row) for row in range(3)] == [1, 2, 3]


def test_md5_ids(tmp_path):
    pictures = {"8cf9" * 8: b"a", "00ff" * 8: b"b"}
    images = ImageTsv(write(tmp_path / "T2I_train.img.tsv", pictures), id_type=str)
    assert contents(images) == pictures
    assert (images.id_type, images.ids.dtype.kind) == ("str", "U")
    assert images.row_of("00ff" * 8) == 1
    assert images.rows_of([]).tolist() == []


def test_rows_of_many_ids(path):
    images = ImageTsv(path)
    assert images.rows_of(np.array([20, 20, 30])).tolist() == [2, 2, 0]
    assert images.rows_of([]).tolist() == []
    with pytest.raises(UserError, match=r"MR_valid_imgs.*: image 21: is not among"):
        images.rows_of([20, 21])
    with pytest.raises(UserError, match="image 99"):
        images.row_of(99)


@pytest.mark.parametrize("chunk", [2, 7, 64])
def test_lines_across_the_buffers_of_the_reader(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("zoo.data.lines._BUFFER", chunk)
    pictures = {n: bytes([n]) * (n * 5 % 90) for n in range(60)}
    for tail in (b"", b"\n", b"\n\n"):
        assert contents(ImageTsv(write(tmp_path / f"{len(tail)}.tsv", pictures, tail=tail))) == pictures


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"no tab here", "no tab"),
        (b"x7\tAAAA", "image x7: the id is no integer"),
        (b"-7\tAAAA", "image -7: the id is no integer"),
        (b"1" * 19 + b"\tAAAA", "no integer of 1 to 18 digits"),
        (b"\tAAAA", "the id is no integer"),
        (b"10\tAAAA", "image 10: the id is already on line 2"),
    ],
)
def test_a_malformed_line_is_named_with_its_file_and_line(path, line, message):
    path.write_bytes(path.read_bytes() + line + b"\n99\tAAAA\n")
    with pytest.raises(UserError) as raised:
        ImageTsv(path)
    assert str(raised.value).startswith(f"{path}:4: ")
    assert message in str(raised.value)


def test_an_id_that_is_not_text_is_named(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"abc\tAAAA\n\xff\xfe\tAAAA\n")
    with pytest.raises(UserError, match=r"x\.tsv:2: image "):
        ImageTsv(tmp_path / "x.tsv", id_type=str)


def test_broken_base64_is_an_error_when_it_is_read_and_its_row_is_named(path):
    path.write_bytes(path.read_bytes() + b"77\tA$AA\n")
    images = ImageTsv(path)
    with pytest.raises(ImageError, match="not base64"):
        images[3]
    error = images.error(3, "is broken", kind="bad_image")
    assert str(error) == f"{path}:4: image 77: is broken"
    assert (error.file, error.line, error.id, error.kind) == (str(path), 4, 77, "bad_image")


def test_missing_and_empty_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        ImageTsv(tmp_path / "gone.tsv")
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(UserError, match="holds no rows"):
        ImageTsv(tmp_path / "empty.tsv")


@pytest.mark.parametrize(("end", "tail"), [(b"\n", b"\n"), (b"\n", b""), (b"\r\n", b"\r\n")])
def test_the_index_is_cached_away_from_the_data_and_used_again(path, cache, monkeypatch, end, tail):
    write(path, PICTURES, end=end, tail=tail)
    ImageTsv(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(tsv_module, "build_index", lambda *_: pytest.fail("indexed again"))
    images = ImageTsv(path)
    assert isinstance(images._index, np.memmap)
    assert contents(images) == PICTURES


def test_a_changed_file_is_indexed_again_and_its_old_index_removed(path, cache):
    ImageTsv(path)
    write(path, changed := {5: b"five", **PICTURES})
    assert contents(ImageTsv(path)) == changed
    assert len(list(cache.iterdir())) == 1


def test_files_of_equal_length_and_time_have_an_index_each(tmp_path, cache):
    for name, ids in (("a", (10, 21, 30, 42, 50)), ("b", (10, 42, 30, 21, 50))):
        path = write(tmp_path / f"{name}.tsv", {number: b"%d" % number for number in ids})
        os.utime(path, ns=(1, 1))
        assert contents(ImageTsv(path)) == {number: b"%d" % number for number in ids}
    assert len(list(cache.iterdir())) == 2


def test_a_file_has_an_index_for_each_type_of_its_ids(path, cache):
    for _ in range(2):
        assert ImageTsv(path).ids.tolist() == [30, 10, 20]
        assert ImageTsv(path, id_type=str).ids.tolist() == ["30", "10", "20"]
    assert len(list(cache.iterdir())) == 2


def test_the_time_of_change_alone_makes_a_new_index(path, cache):
    ImageTsv(path)
    write(path, changed := {30: b"THIRTY", 20: b"", 10: b"\xfb\xff\xfe"})
    os.utime(path, ns=(1, 1))
    assert contents(ImageTsv(path)) == changed


def test_an_equally_long_file_with_other_rows_is_indexed_again(path):
    """The rows that a cached index is held against, the first, middle and last, are as they were."""
    names = [10, 21, 30, 42, 50]
    write(path, {name: b"%d" % name for name in names})
    ImageTsv(path)
    write(path, changed := {name: b"%d" % name for name in (10, 42, 30, 21, 50)})
    os.utime(path, ns=(1, 1))
    images = ImageTsv(path)
    assert contents(images) == changed
    assert images.rows_of([42, 21]).tolist() == [1, 3]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:40], lambda _: b"", lambda _: b"junk" * 99]
)
def test_a_corrupt_cache_is_made_again(path, cache, damage):
    ImageTsv(path)
    (index,) = cache.iterdir()
    index.write_bytes(damage(index.read_bytes()))
    assert contents(ImageTsv(path)) == PICTURES
    assert isinstance(ImageTsv(path)._index, np.memmap)


@pytest.mark.parametrize("row", [0, 2, 4])
@pytest.mark.parametrize(("field", "by"), [("start", 1), ("length", -2), ("length", 3), ("id", 1)])
def test_a_cached_index_of_which_a_row_is_wrong_is_made_again(tmp_path, cache, row, field, by):
    pictures = {number: b"%d" % number for number in (10, 20, 30, 40, 50)}
    path = write(tmp_path / "x.tsv", pictures)
    ImageTsv(path)
    (file,) = cache.iterdir()
    index = np.load(file)
    index[field][row] += by
    with file.open("wb") as opened:
        np.save(opened, index)
    assert contents(ImageTsv(path)) == pictures


@pytest.mark.parametrize("damage", [lambda index: index[:0], lambda index: index[["id", "line", "start", "length"]]])
def test_a_cached_index_of_nothing_or_of_other_fields_is_made_again(path, cache, damage):
    ImageTsv(path)
    (file,) = cache.iterdir()
    damaged = damage(np.load(file))
    with file.open("wb") as opened:
        np.save(opened, damaged)
    images = ImageTsv(path)
    assert contents(images) == PICTURES
    assert images.rows_of([10, 30]).tolist() == [1, 0]


def test_an_index_of_an_earlier_version_is_removed(path, cache, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(tsv_module, "_INDEX_VERSION", 1)
        ImageTsv(path)
    (old,) = cache.iterdir()
    assert contents(ImageTsv(path)) == PICTURES
    (new,) = cache.iterdir()
    assert new != old


def test_an_old_index_that_cannot_be_removed_is_left(path, cache):
    ImageTsv(path)
    (index,) = cache.iterdir()
    stuck = index.with_name(f"{index.name.split('-')[0]}-int-1-0-0.npy")
    stuck.mkdir()  # as what another user owns: it cannot be unlinked
    write(path, changed := {5: b"five", **PICTURES})
    images = ImageTsv(path)
    assert contents(images) == changed
    assert isinstance(images._index, np.memmap)
    assert stuck.is_dir()
    assert not index.exists()


def test_a_cached_index_that_does_not_fit_the_file_is_made_again(path, cache, tmp_path):
    ImageTsv(path)
    (index,) = cache.iterdir()
    other = build_index(write(tmp_path / "other.tsv", {1234: b"x", 20: b"y"}), "int")
    with index.open("wb") as file:
        np.save(file, other)
    assert contents(ImageTsv(path)) == PICTURES


def test_a_cache_folder_that_cannot_be_written_is_done_without(path, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    images = pickle.loads(pickle.dumps(ImageTsv(path)))
    assert contents(images) == PICTURES


def test_pickling_carries_no_index(tmp_path):
    images = ImageTsv(write(tmp_path / "x.tsv", {n: b"picture" for n in range(5000)}))
    images[0]
    data = pickle.dumps(images)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy._mapped is not images._mapped
    assert isinstance(copy._index, np.memmap)
    assert copy[4999] == b"picture"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_rows(path, method):
    images = ImageTsv(path)
    images[0]  # the file is mapped before the worker starts
    with multiprocessing.get_context(method).Pool(1) as worker:
        assert worker.apply(images.__getitem__, (2,)) == PICTURES[20]
        assert worker.apply(images.row_of, (20,)) == 2
        assert worker.apply(ImageTsv.__getstate__, (images,))["_index"] is None  # mapped there too, not copied


def test_indexing_a_large_file_is_announced(path, monkeypatch, capsys):
    monkeypatch.setattr(tsv_module, "_ANNOUNCED_SIZE", path.stat().st_size)
    ImageTsv(path)
    assert "Indexing MR_valid_imgs.tsv (0.0 GB)" in capsys.readouterr().err
    ImageTsv(path)
    assert capsys.readouterr().err == ""


def test_joined_files_are_read_one_after_the_other(tmp_path):
    parts = [
        ImageTsv(write(tmp_path / f"{n}.tsv", {n * 10 + m: b"%d" % (n * 10 + m) for m in range(n)})) for n in (3, 1, 4)
    ]
    joined = pickle.loads(pickle.dumps(JoinedTsv(parts)))
    assert joined.ids.tolist() == [30, 31, 32, 10, 40, 41, 42, 43]
    assert [joined[row] for row in range(len(joined))] == [b"%d" % id_ for id_ in joined.ids]
    assert joined.error(3, "", kind="bad_image").kind == "bad_image"
    assert str(joined.error(3, "", kind="bad_image")) == f"{tmp_path}/1.tsv:1: image 10: "
    assert str(joined.error(5, "", kind="bad_image")) == f"{tmp_path}/4.tsv:2: image 41: "


# --- malformed lines left out ----------------------------------------------------------------------------------


def test_malformed_and_repeated_lines_are_left_out_and_listed(path):
    path.write_bytes(b"\xef\xbb\xbfno tab\n" + path.read_bytes() + b"\r\nx7\tAAAA\r\n10\tAAAA\n10\tAAAA\n40\tAAAA\n\n")
    images = ImageTsv(path, errors=(errors := []))
    assert contents(images) == {**PICTURES, 40: bytes(3)}
    assert images.error(3, "", kind="bad_image").line == 9
    assert [images.line_number(row) for row in range(4)] == [2, 3, 4, 9]
    assert images.rows_of([40, 30]).tolist() == [3, 0]
    assert [(error.line, error.id, error.kind) for error in errors] == [
        *((1, None, "wrong_columns"), (6, "x7", "wrong_type"), (7, 10, "duplicate_id"), (8, 10, "duplicate_id")),
    ]


def test_a_sound_file_has_one_index_whether_or_not_errors_are_listed(path, cache, monkeypatch):
    ImageTsv(path, errors=(errors := []))
    monkeypatch.setattr(tsv_module, "build_index", lambda *_: pytest.fail("indexed again"))
    assert contents(ImageTsv(path)) == PICTURES
    assert not errors


def test_the_index_of_a_faulty_file_is_not_cached_and_travels_to_workers(path, cache):
    path.write_bytes(path.read_bytes() + b"no tab\n")
    images = pickle.loads(pickle.dumps(ImageTsv(path, errors=[])))
    assert contents(images) == PICTURES
    assert not cache.exists()
    with pytest.raises(UserError, match=r":4: no tab"):
        ImageTsv(path)


def test_a_file_of_nothing_but_errors_is_refused(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"no tab\n")
    with pytest.raises(UserError, match=r"has no line that can be used \(.*x\.tsv:1: no tab"):
        ImageTsv(tmp_path / "x.tsv", errors=[])
