import subprocess
import sys

import pytest

from zoo.cli.data import main


def test_it_says_where_the_data_is_and_what_it_holds(demo_root, capsys):
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(demo_root)
    assert "  test         60 images, 30 queries, 60 descriptions, 60 captioned" in lines
    assert "  scorer       80 images" in "\n".join(lines)


def test_it_answers_without_pytorch_when_the_data_is_there(demo_root):
    code = "import sys; from zoo.cli.data import main; main(['demo']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("words", [["--help"], ["demo", "--help"]])
def test_help_fits_eighty_columns(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("words", [[], ["domo"], ["demo", "--rot", "x"]])
def test_a_wrong_command_line_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "The options: python -m zoo data" in capsys.readouterr().err
