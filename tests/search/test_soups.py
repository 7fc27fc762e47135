from __future__ import annotations

import pytest
import torch
from transformers import BertForSequenceClassification

import alliage
from alliage.merging import load_recipe, plan, run
from alliage.search.questions import questions_of
from alliage.search.running import search_soup
from alliage.search.soups import Step, greedy
from tests.conftest import save_tokenizer, shift

# Scores of four models and of their averages. By own score the order is 1, 3, 0, 2. Start with {1}:
# 0.80. With 3: 0.85, better: taken. With 0: 0.84, worse: left. With 2: 0.85, equal: taken.
SCORES = {
    (0,): 0.60, (1,): 0.80, (2,): 0.50, (3,): 0.70,
    (1, 3): 0.85, (0, 1, 3): 0.84, (1, 2, 3): 0.85,
}  # fmt: skip


def test_a_greedy_soup_by_hand():
    steps = greedy(4, SCORES.__getitem__)
    assert steps == [
        Step((0,), 0.60, False), Step((1,), 0.80, True), Step((2,), 0.50, False),
        Step((3,), 0.70, False),
        Step((1, 3), 0.85, True), Step((0, 1, 3), 0.84, False), Step((1, 2, 3), 0.85, True),
    ]  # fmt: skip


def test_where_lower_is_better():
    # The errors are 1 − the scores: the same soup.
    steps = greedy(4, lambda chosen: 1 - SCORES[chosen], maximise=False)
    assert [step.models for step in steps if step.taken] == [(1,), (1, 3), (1, 2, 3)]


def test_of_equal_models_the_first_comes_first():
    # Of equal own scores 1 and 2, the soup begins with 1; each average is worse.
    scores = {(0,): 0.1, (1,): 0.5, (2,): 0.5, (1, 2): 0.4, (0, 1): 0.3}
    steps = greedy(3, scores.__getitem__)
    assert [step.models for step in steps] == [(0,), (1,), (2,), (1, 2), (0, 1)]
    assert [step.models for step in steps if step.taken] == [(1,)]


@pytest.fixture(scope="module")
def siblings(family, tmp_path_factory):
    """Five models of one task, with heads that say different things."""
    home = tmp_path_factory.mktemp("siblings")
    for seed in range(5):
        model = BertForSequenceClassification.from_pretrained(family / "sentiment")
        shift(model, seed + 10, 0.4)
        model.save_pretrained(home / str(seed))
        save_tokenizer(home / str(seed))
    return [str(home / str(seed)) for seed in range(5)]


def by_files(models, task, out):
    """The accuracy of an average that is written and evaluated."""
    alliage.merge("average", models=models, out=out)
    return alliage.evaluate(out, task)["mood"].metrics["accuracy"]


def test_a_greedy_soup_by_files_says_the_same(siblings, tasks, tmp_path, monkeypatch):
    asked = questions_of(tasks[:1])
    found = search_soup(siblings, "greedy", asked, tmp_path / "found")

    def score(chosen):
        name = "-".join(map(str, chosen))
        return by_files([siblings[place] for place in chosen], tasks[0], tmp_path / name)

    steps = greedy(len(siblings), score)
    assert [trial.score.value for trial in found.trials] == [step.value for step in steps]
    best = [step.models for step in steps if step.taken][-1]
    assert 1 < len(best) < len(siblings)
    assert [entry.model for entry in found.recipe.models] == [siblings[place] for place in best]
    monkeypatch.chdir(tmp_path)
    run(plan(load_recipe(found.path)), tmp_path / "merged")
    one, other = (alliage.open(tmp_path / name) for name in ("merged", "-".join(map(str, best))))
    with one, other:
        for name in one.specs():
            assert torch.equal(one.read(name), other.read(name))
    assert alliage.evaluate(tmp_path / "merged", tasks[0])["mood"].metrics["accuracy"] == (
        found.score.value
    )


def test_a_uniform_soup_takes_all(siblings, tasks, tmp_path):
    found = search_soup(siblings, "uniform", questions_of(tasks[:1]), tmp_path / "found")
    assert [entry.model for entry in found.recipe.models] == siblings
    assert len(found.trials) == 1
    assert found.score.value == by_files(siblings, tasks[0], tmp_path / "merged")


def test_adapters_may_be_averaged(family, tasks, tmp_path):
    models = [str(family / "sentiment-lora")] * 2
    found = search_soup(
        models, "greedy", questions_of(tasks[:1], heads={"mood": "sentiment-lora"}), tmp_path
    )
    assert len(found.recipe.models) == 2  # equal models do not make each other worse
