"""The study of a search: what it writes, what it asks for next."""

from __future__ import annotations

import pytest

from alliage.search.candidates import Score
from alliage.search.space import Search, parse_spaces
from alliage.search.trials import STUDY, holds_trials, open_study, search


def space_of(content, recipe):
    return Search(recipe, parse_spaces({"parameters": content}, recipe, "recipe"))


def test_looking_for_trials_writes_nothing(tmp_path, recipe):
    space = space_of({"scale": [0.5, 1.0]}, recipe())
    path = tmp_path / STUDY
    path.touch()  # of a search that was killed before it wrote a line
    assert not holds_trials(tmp_path)
    assert not path.read_bytes()
    study = open_study(tmp_path, {}, maximise=True)
    search(study, space, lambda made: Score(0.0, ()), maximise=True)
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')  # a line that the search is at
    before = path.read_bytes()
    assert holds_trials(tmp_path)
    assert path.read_bytes() == before
    open_study(tmp_path, {}, maximise=True)  # who goes on drops it
    assert b'"wor{' not in path.read_bytes()


def test_a_study_s_draws_depend_on_the_seed_alone(tmp_path, recipe):
    space = space_of({"scale": {"low": 0, "high": 9}}, recipe())

    def drawn(name, seed):
        study = open_study(tmp_path / name, {}, maximise=True)
        score = lambda made: Score(-abs(made.parameters["scale"] - 3), ())  # noqa: E731
        found = search(study, space, score, maximise=True, trials=14, seed=seed)
        return [trial.parameters["scale"] for trial in found.trials]

    first, same, other = drawn("a", 0), drawn("b", 0), drawn("c", 1)
    assert first == same
    assert not set(first) & set(other)  # nor the same draws, one trial later


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("trials", [3, 20])
def test_a_step_need_not_end_at_the_highest_value(tmp_path, recipe, trials):
    """From 0.1 in steps of 0.2 up to 0.95: 0.9 is the last; chosen by the study and in turn."""
    values = {"low": 0.1, "high": 0.95, "step": 0.2}
    space = space_of({"density": values}, recipe())
    study = open_study(tmp_path, {}, maximise=True)
    score = lambda made: Score(made.parameters["density"], ())  # noqa: E731
    found = search(study, space, score, maximise=True, trials=trials)
    tried = [trial.parameters["density"] for trial in found.trials]
    assert len(tried) == min(trials, 5)
    assert set(tried) <= {0.1, 0.3, 0.5, 0.7, 0.9}
    if trials == 20:
        assert tried == [0.1, 0.3, 0.5, 0.7, 0.9]


def test_a_point_that_waits_when_a_search_is_killed_is_asked_for_again(tmp_path, recipe):
    space = space_of({"scale": [1.0, 2.0, 3.0]}, recipe())
    score = lambda made: Score(made.parameters["scale"], ())  # noqa: E731
    study = open_study(tmp_path, {}, maximise=True)
    study.enqueue_trial({"method": "ties", "ties.scale": 3.0})
    found = search(study, space, score, maximise=True)
    assert [trial.parameters["scale"] for trial in found.trials] == [1.0, 2.0, 3.0]
