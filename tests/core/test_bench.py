import pytest

from zoo.core.bench.harness import Row, interleave, report, run_bench
from zoo.core.bench.samples import BASE64_BYTES, product_jpeg, queries


def nothing(*, pictures: int = 8, share: float = 0.5, output: str | None = None) -> None:
    """Measure nothing.

    It takes no time.

    Args:
        pictures: Images that are not read.
        share: Share of them.
        output: A file that is not written.
    """


def test_a_function_s_arguments_are_a_bench_s_options(capsys):
    with pytest.raises(SystemExit):
        run_bench("nothing", nothing, ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Measure nothing. It takes no time. Each row is a ratio of rates" in said
    assert "Images that are not read. (type: int, default: 8)" in said
    assert "Args:" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pictures", "0"], "python -m zoo bench nothing: error: --pictures is 0: give 1 or more"),
        (["--picture", "4"], "there is no option --picture. Did you mean --pictures"),
    ],
)
def test_wrong_options_are_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as left:
        run_bench("nothing", nothing, words)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_contenders_take_turns_and_the_first_block_does_not_count(capsys):
    turns = []

    def contender(name):
        def measure():
            turns.append(name)
            return float(len(turns))

        return measure

    rates = interleave({"ours": contender("ours"), "peer": contender("peer")}, blocks=2, what="bench")
    assert turns == ["ours", "peer"] * 3
    assert rates == {"ours": [3.0, 5.0], "peer": [4.0, 6.0]}
    assert "block 2 of 2" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    row = Row("plain", "pairs/s", {"ours": [4.0, 2.0], "peer": [1.0, 1.0]}, "ours", "peer", 2.0)
    with pytest.raises(ValueError, match=r"--output .*bench\.json cannot be written"):
        report("data", [row], {"torch": "1"}, output=str(tmp_path / "file" / "bench.json"))
    assert "3.00" in capsys.readouterr().out


def test_generated_data_is_like_muges():
    from io import BytesIO

    from PIL import Image

    pictures = [product_jpeg(seed) for seed in range(40)]
    sizes = sorted(4 * len(picture) / 3 for picture in pictures)
    assert BASE64_BYTES[0] * 0.75 < sizes[0]
    assert sizes[-1] < BASE64_BYTES[1]
    assert Image.open(BytesIO(pictures[0])).size == (224, 224)
    assert {len(text) for text in queries(500)} == set(range(6, 14))
