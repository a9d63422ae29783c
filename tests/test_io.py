"""Files of our own: whole or not at all."""

import threading

import pytest

from zoo.io import atomic_write, cache_folder, write_text


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
