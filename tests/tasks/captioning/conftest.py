"""What several test files of captioning use."""

import pytest
from tiny_vlm import write_vlm


@pytest.fixture(scope="session")
def saved_vlm(tmp_path_factory):
    """Writes a vision-language model with random weights: ``folder = saved_vlm("qwen3_vl")``; read only."""
    made = {}

    def write(family):
        if family not in made:
            made[family] = write_vlm(tmp_path_factory.mktemp(family) / "model", family)
        return made[family]

    return write
