import subprocess
import sys

import pytest

from zoo.__main__ import main
from zoo.spec import find_specs

BENCHES = [(name, spec.name) for spec in find_specs() for name in spec.benches]


def test_help_lists_the_benches_of_all_tasks(capsys):
    assert main(["bench", "--help"]) == 0
    said = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in said if line.startswith("  ")]
    of_a_gpu = {"gpu", "gpu_sample", "gpu_caption"}
    of_a_cpu = {"data", "eval", "export", "step", "sample", "memory", "score", "caption", "search", "serve"}
    assert set(listed) == of_a_cpu | of_a_gpu == dict(BENCHES).keys()
    assert len(listed) == len(set(listed))


def test_a_task_s_own_benches(capsys):
    assert main(["bench", "--task", "text_to_image", "--help"]) == 0
    said = capsys.readouterr().out
    assert "Lightning's loop around a diffusion generator" in said
    assert "cn-clip" not in said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "usage: python -m zoo bench COMMAND"),
        (["stepp"], 2, "there is no command 'stepp'. Did you mean step"),
        (["step", "--task", "captioning"], 2, "there is no command 'step'"),
        (["step", "--task", "captionin"], 1, "There is no task 'captionin'. Did you mean captioning"),
        (["step", "--task", "image_tokenizer"], 1, "--task image_tokenizer: this task has no benches"),
    ],
)
def test_a_bench_that_is_not_there_is_named(capsys, words, code, message):
    assert main(["bench", *words]) == code
    said = capsys.readouterr()
    assert message in said.out + said.err


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
