import numpy as np
import pytest

from zoo.__main__ import main
from zoo.tasks.captioning.bench.caption import slogans


@pytest.mark.parity
def test_captions_beside_pycocoevalcap(run_bench):
    result = run_bench("caption", "--images", 30, "--references", 3, "--blocks", 2)
    assert [(row["ours_is"], row["peer_is"]) for row in result["rows"]] == [
        ("ours", "pycocoevalcap"),
        ("references kept", None),
    ]


def test_slogans_are_of_muges_lengths_and_share_words_with_their_image_s_others():
    texts, captions = slogans(40, 5)
    assert [len(texts), len(captions), {len(own) for own in texts}] == [40, 40, {5}]
    lengths = {len(tokens) for own in texts for tokens in own}
    assert min(lengths) >= 10
    assert max(lengths) == 20
    shared = [
        np.mean([len({*caption} & {*text}) for text in own]) for caption, own in zip(captions, texts, strict=True)
    ]
    others = [
        np.mean([len({*caption} & {*text}) for text in own]) for caption, own in zip(captions, texts[1:], strict=False)
    ]
    assert np.mean(shared) > 1.5 * np.mean(others)
    assert slogans(40, 5) == (texts, captions)


def test_a_missing_peer_names_the_extra(hide_module, capsys):
    hide_module("pycocoevalcap")
    assert main(["bench", "caption"]) == 1
    assert "pycocoevalcap, which is not installed: pip install -e '.[parity]'" in capsys.readouterr().err
