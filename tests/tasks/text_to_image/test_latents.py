import json

import numpy as np
import pytest

from zoo.tasks.text_to_image.latents import METADATA, LatentMetadata, Latents, LatentsWriter

SHAPE = (4, 1, 2, 2)  # codes


def facts(weights):
    return LatentMetadata("a data set", 16, "vqgan_tiny", weights, flipped=False)


def begun(folder, weights="a", shape=SHAPE):
    """A writer that an interruption ends behind two rows."""
    writer = LatentsWriter(folder, facts(weights), shape)
    writer.write(np.full((2, *shape[1:]), 7))
    return writer


def test_an_interrupted_run_goes_on(tmp_path):
    begun(tmp_path)
    writer = LatentsWriter(tmp_path, facts("a"), SHAPE)
    assert writer.done == 2
    writer.write(np.full((2, *SHAPE[1:]), 8))
    writer.finish()
    assert [row.max() for row in Latents(tmp_path).array] == [7, 7, 8, 8]
    assert sorted(path.name for path in tmp_path.iterdir()) == [METADATA, "train.npy"]


def test_what_others_took_the_place_of_is_begun_anew(tmp_path):
    begun(tmp_path)
    LatentsWriter(tmp_path, facts("b"), SHAPE)  # ended before its first row
    assert LatentsWriter(tmp_path, facts("a"), SHAPE).done == 0


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"done": 2}'])
def test_what_cannot_be_read_was_not_begun(tmp_path, damage):
    begun(tmp_path)
    (tmp_path / "progress.json").write_text(damage)
    assert LatentsWriter(tmp_path, facts("a"), SHAPE).done == 0


def test_rows_of_another_shape_were_not_begun(tmp_path):
    begun(tmp_path)
    progress = json.loads((tmp_path / "progress.json").read_text())
    begun(tmp_path, shape=(4, 2, 2, 2))
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    assert LatentsWriter(tmp_path, facts("a"), SHAPE).done == 0
