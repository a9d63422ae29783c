import importlib.util
import json
import statistics
import subprocess
import sys

import numpy as np
import pytest

from zoo.__main__ import main
from zoo.bench import harness as bench_report
from zoo.bench.caption import slogans


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # what the command would set for good


@pytest.mark.parity
def test_both_score_the_same_captions_alike(tmp_path, capsys):
    path = tmp_path / "caption.json"
    words = ("--pictures", "30", "--references", "3", "--blocks", "2", "--output", str(path))
    assert main(["bench", "caption", *words]) == 0
    result = json.loads(path.read_text())
    whole, again = result["rows"]
    assert (whole["ours_is"], whole["peer_is"], again["peer_is"]) == ("ours", "pycocoevalcap", None)
    assert whole["ratio"] == pytest.approx(whole["ours"] / whole["peer"])
    assert again["ours"] == statistics.median(again["blocks"]["references kept"])
    assert float(result["protocol"]["largest_difference"].partition(" ")[0]) < 1e-6
    assert f"{whole['ratio']:.2f}" in capsys.readouterr().out


def test_slogans_are_of_muges_lengths_and_share_words_with_their_picture_s_others():
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


def test_a_missing_peer_names_the_extra(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        bench_report.importlib.util, "find_spec", lambda name: None if name == "pycocoevalcap" else find(name)
    )
    assert main(["bench", "caption"]) == 1
    assert "pycocoevalcap, which is not installed: pip install -e '.[parity]'" in capsys.readouterr().err


def test_no_references_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "caption", "--references", "0"])
    assert "--references is 0: give 1 or more" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom zoo.__main__ import main\n"
        "try: main(['bench', 'caption', '--help'])\nexcept SystemExit: pass\n"
        "print([module for module in ('torch', 'numpy', 'PIL') if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
