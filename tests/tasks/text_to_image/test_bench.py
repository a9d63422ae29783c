import pytest

from zoo.__main__ import main


@pytest.mark.parity
def test_score(run_bench):
    result = run_bench("score", "--rows", 60, "--width", 40, "--images", 3, "--blocks", 2)
    assert {(row["name"], row["ours_is"], row["peer_is"]) for row in result["rows"]} == {
        ("Fréchet distance", "ours", "torch-fidelity"),
        ("kernel distance", "ours", "torch-fidelity"),
        ("reading", "read and seen", "seen"),
    }
    for values in result["protocol"]["values"].values():
        assert values["ours"] == pytest.approx(values["torch-fidelity"], rel=1e-4)


@pytest.mark.slow
def test_sample(run_bench):
    words = ("--images", 2, "--steps", 1, "--precision", "32-true")
    result = run_bench("sample", *words, "--blocks", 2)
    assert [(row["unit"], row["peer_is"]) for row in result["rows"]] == [
        ("images/s", "diffusers"),
        ("codes/s", "matrix products"),
    ]


@pytest.mark.slow
def test_the_loop(run_bench):
    result = run_bench("step", "--task", "text_to_image", "--batch_size", 2, "--precision", "32-true")
    assert [(row["name"], row["peer_is"]) for row in result["rows"]] == [("loop of unet_tiny", "bare loop")]
    assert result["protocol"]["precision"] == "32-true for both"


def test_as_many_rows_as_dimensions_are_refused(capsys):
    assert main(["bench", "score", "--rows", "40", "--width", "40"]) == 1
    assert "--rows is 40: give 41 or more" in capsys.readouterr().err
