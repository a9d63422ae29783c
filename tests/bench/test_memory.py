import json

import pytest

from zoo.__main__ import main


@pytest.mark.slow
def test_a_step_in_chunks_takes_the_memory_of_a_chunk(tmp_path, monkeypatch):
    """64 times the batch: the pictures and embeddings grow, the rest does not; kept whole, all of it does."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    path = tmp_path / "memory.json"
    words = ("--batch_sizes", "[64, 512, 4096]", "--kept", "512", "--blocks", "1", "--output", str(path))
    assert main(["bench", "memory", *words]) == 0
    rows = json.loads(path.read_text())["rows"]
    size = dict(zip(("small", "kept", "large"), (64, 512, 4096), strict=True))
    small, kept, large = (count / row["ours"] for count, row in zip(size.values(), rows, strict=True))  # GB
    assert large < 1.25 * small
    assert 512 / rows[1]["peer"] - small > 5 * (kept - small)


def test_no_pairs_are_no_step(capsys):
    assert main(["bench", "memory", "--batch_sizes", "[64, 0]"]) == 1
    assert "--batch_sizes: 0 came; give 1 or more" in capsys.readouterr().err
