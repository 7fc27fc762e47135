from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

import alliage
from alliage.errors import AlliageError, UsageError
from alliage.evaluation import load_classifier
from alliage.evaluation.scoring import Settings, ask
from alliage.merging import load_recipe, plan, run
from alliage.search.questions import Question, mean_entropy, questions_of
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


@pytest.mark.parametrize("maximise", [True, False])
def test_what_is_not_defined_is_the_worst(maximise):
    # Own scores NaN, 0.2, 0.1 (or the errors 0.8, 0.9): the order is 1, 2, 0; with 2 it is not
    # defined and left, with 0 better and taken.
    sign = 1 if maximise else -1
    scores = {(0,): math.nan, (1,): 0.2, (2,): 0.1, (1, 2): math.nan, (0, 1): 0.3}
    steps = greedy(3, lambda chosen: sign * scores[chosen], maximise=maximise)
    assert [step.models for step in steps] == [(0,), (1,), (2,), (1, 2), (0, 1)]
    assert [step.models for step in steps if step.taken] == [(1,), (0, 1)]
    with pytest.raises(AlliageError, match="not defined for the answers of any model"):
        greedy(3, lambda _: math.nan, maximise=maximise)


def test_a_soup_that_is_not_defined_is_none(siblings, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(Question, "measure", lambda *_: math.nan)
    with pytest.raises(AlliageError, match="not defined"):
        search_soup(siblings, "uniform", questions_of(tasks[:1]), tmp_path)
    assert not (tmp_path / "best.yml").exists()


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


RECORD = {"task": "mood", "kind": "sequence-classification", "labels": ["negative", "positive"]}


@pytest.fixture
def adapters(family, tmp_path):
    """Two adapters of one task, with other factors and other heads."""
    home = tmp_path / "adapters"
    for seed, name in enumerate(("one", "two")):
        shutil.copytree(family / "sentiment-lora", home / name)
        path = home / name / "adapter_model.safetensors"
        draw = torch.Generator().manual_seed(seed)
        tensors = {
            key: tensor + 0.5 * torch.randn(tensor.shape, generator=draw)
            for key, tensor in load_file(path).items()
        }
        save_file(tensors, path)
        (home / name / "alliage.json").write_text(json.dumps(RECORD))
    return [str(home / name) for name in ("one", "two")]


def test_adapters_are_averaged_with_their_heads(adapters, tasks, tmp_path, monkeypatch):
    """Asked one by one they answer as they do themselves; the soup has the mean of their heads."""
    criterion = {"criterion": "entropy"}  # which no two models have in common
    found = search_soup(adapters, "greedy", questions_of(tasks[:1], **criterion), tmp_path / "out")
    values = [trial.score.value for trial in found.trials]

    def entropy(model):
        with alliage.open(model) as checkpoint:
            classifier = load_classifier(checkpoint, tasks[0])
            return mean_entropy(ask(classifier, tasks[0].splits["validation"], Settings()))

    assert values[:2] == pytest.approx([entropy(model) for model in adapters], abs=1e-6)
    assert abs(values[0] - values[1]) > 1e-3
    monkeypatch.chdir(tmp_path)
    merged = tmp_path / "merged"
    alliage.merge("average", models=adapters, out=merged)
    assert values[2] == pytest.approx(entropy(merged), abs=1e-6)
    heads = [
        load_file(Path(model) / "adapter_model.safetensors")["base_model.model.classifier.weight"]
        for model in adapters
    ]
    average = load_file(merged / "model.safetensors")["classifier.weight"]
    torch.testing.assert_close(average, (heads[0] + heads[1]) / 2)
    assert not (merged / "heads").exists()
    config = json.loads((merged / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    record = json.loads((merged / "alliage.json").read_text())
    assert RECORD.items() <= record.items()
    run(plan(load_recipe(found.path)), tmp_path / "best")
    assert entropy(tmp_path / "best") == pytest.approx(found.score.value, abs=1e-6)


def test_models_that_may_decide_other_things_are_no_soup(adapters, tasks, tmp_path):
    turned = {"labels": ["positive", "negative"]}
    (Path(adapters[1]) / "alliage.json").write_text(json.dumps(RECORD | turned))
    with pytest.raises(UsageError, match=r"one: keeps a head of its own: .*Record one task"):
        search_soup(adapters, "greedy", questions_of(tasks[:1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
