"""Two hundred bad inputs, always the same; ``bad_inputs.py`` runs others, by the thousand."""

import pytest
from spoiling.running import Runner


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    return Runner(tmp_path_factory.mktemp("bad-inputs") / "all", seed=0)


def test_bad_inputs_are_refused_by_name_good_ones_taken_and_no_file_is_lost(runner):
    failures = runner.run(200)
    assert not failures, "\n\n".join(f"{failure.name}: {failure.what}\n{failure.said}" for failure in failures)
    assert {outcome for _, outcome in runner.counts} == {"refused", "same", "accepted", "either"}


def test_every_area_has_two_dozen_mutators(runner):
    for area in runner.areas:
        assert len({mutator.name for _, mutator in runner.pairs[area.name]}) >= 24, area.name
