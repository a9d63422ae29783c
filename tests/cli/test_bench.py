import subprocess
import sys

import pytest

from zoo.__main__ import main
from zoo.cli.bench import find_benches

BENCHES = [(name, task) for name, tasks in find_benches().items() for task in tasks]


def test_help_lists_the_benches_of_all_tasks(capsys):
    assert main(["bench", "--help"]) == 0
    said = capsys.readouterr().out
    assert {"data", "eval", "step", "sample", "memory", "score", "caption"} == find_benches().keys()
    assert all(command.summary in said for tasks in find_benches().values() for command in tasks.values())
    assert "step --task text_to_image" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: python -m zoo bench NAME"),
        (["stepp"], "there is no bench 'stepp'. Did you mean step"),
    ],
)
def test_a_bench_that_is_not_there_shows_those_that_are(capsys, words, message):
    assert main(["bench", *words]) == 2
    said = capsys.readouterr()
    assert message in said.out + said.err
    assert "the peak memory of a step" in said.out + said.err


def test_a_task_without_the_bench_is_refused(capsys):
    assert main(["bench", "step", "--task", "captioning"]) == 1
    assert "--task captioning: this bench is of retrieval, text_to_image" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "task"), BENCHES)
def test_help_imports_nothing_heavy(name, task):
    code = (
        "import sys\nfrom zoo.__main__ import main\n"
        f"try: main(['bench', {name!r}, '--task', {task!r}, '--help'])\nexcept SystemExit: pass\n"
        "print([module for module in ('torch', 'numpy', 'PIL') if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "--output" in done.stdout
    assert done.stdout.strip().splitlines()[-1] == "[]"
