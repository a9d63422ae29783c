"""Paths as users give them; files of our own: whole or not at all."""

import threading

import pytest

from zoo.errors import UserError
from zoo.io import atomic_write, cache_folder, expanded, read_json, remove_unfinished, write_text


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~", "/home/me"),
        ("~/zr", "/home/me/zr"),
        ("$DATA/x", "/mnt/data/x"),
        ("a/${DATA_SET}/b", "a/muge/b"),
        ("~/${DATA_SET}", "/home/me/muge"),
        ("a~/b~c", "a~/b~c"),
        ("auto", "auto"),
        ("OFA-Sys/chinese-clip-vit-base-patch16", "OFA-Sys/chinese-clip-vit-base-patch16"),
        ("100$", "100$"),
    ],
)
def test_a_path_is_spelled_out_as_a_shell_does(monkeypatch, given, meant):
    for name, value in {"HOME": "/home/me", "DATA": "/mnt/data", "DATA_SET": "muge"}.items():
        monkeypatch.setenv(name, value)
    assert expanded(given) == meant


@pytest.mark.parametrize(
    ("given", "unknown"), [("$NOT_SET/x", "$NOT_SET"), ("x/${NOT_SET}", "${NOT_SET}"), ("~no_one/x", "~no_one")]
)
def test_a_path_that_stands_for_nothing_is_refused_unless_it_is_there(monkeypatch, tmp_path, given, unknown):
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        expanded(given)
    assert error.value.value == given
    assert unknown in error.value.valid
    (tmp_path / given).mkdir(parents=True)
    assert expanded(given) == given


@pytest.mark.parametrize("given", ["x" * 300, "x/" * 3000, "nul\0", "self/self"], ids=["name", "path", "nul", "loop"])
def test_a_path_that_no_file_can_have_is_refused_under_its_argument(monkeypatch, tmp_path, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(UserError) as error:
        expanded(given, "data.root")
    assert (error.value.argument, error.value.value) == ("data.root", given)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "half", "bytes", "deep"])
def test_what_is_no_json_is_a_value_error(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "x.json")


def test_atomic_write_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "new folder" / "x.json"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        temporary.write_text("old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    pytest.raises(RuntimeError, fail)
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]
    assert path.read_text() == "old"


def test_two_writers_at_once_leave_one_whole_file(tmp_path):
    writers = [threading.Thread(target=write_text, args=(tmp_path / "t.txt", f"{n}\n" * 2000)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = (tmp_path / "t.txt").read_text().splitlines()
    assert len(lines) == 2000
    assert len(set(lines)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "zoo"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    kept = {tmp_path / name for name in ("last.ckpt", ".hidden", ".gitignore", ".a.12-short.ckpt")}
    for path in kept:
        path.touch()
    killed = [
        atomic_write(folder / name)
        for folder in (tmp_path, tmp_path / "checkpoints")
        for name in ("last.ckpt", "predictions", "x.y.tar.gz")
    ]
    for context in killed:  # a process that is killed leaves none
        context.__enter__().touch()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(kept) + 6
    remove_unfinished(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept
