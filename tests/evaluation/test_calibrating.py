"""Repairs fitted to a model's answers, kept beside it, and applied to what they have not seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

import alliage
from alliage.data import Example, Task
from alliage.errors import AlliageError, UsageError
from alliage.evaluation import Misfit, calibrate, evaluate, load_classifier, predict
from alliage.evaluation.answers import Answers
from alliage.evaluation.calibrating import cross_fitted
from alliage.evaluation.calibration.repairs import fit_repair
from alliage.evaluation.saved_repair import FILE, read_repair
from tests.conftest import WORDS

RANDOM = np.random.default_rng(5)
TEXTS = [" ".join(RANDOM.choice(WORDS, size=5)) for _ in range(60)]
SPLITS = {
    split: tuple(Example((text,), int(RANDOM.integers(2))) for text in TEXTS[start : start + 30])
    for split, start in (("validation", 0), ("test", 30))
}
MOOD = Task("mood", "sequence-classification", ("negative", "positive"), SPLITS)


def answers_of(folder, split, task=MOOD):
    with alliage.open(folder) as checkpoint:
        return predict(load_classifier(checkpoint, task), task.splits[split])


@pytest.fixture
def model(family, tmp_path):
    return shutil.copytree(family / "sentiment", tmp_path / "model")


def test_a_temperature_beside_a_model_is_applied_on_what_it_has_not_seen(model):
    calibrate(model, MOOD, "temperature", model / FILE)
    fitted = answers_of(model, "validation")
    best = minimize_scalar(
        lambda t: log_loss(fitted.truth, softmax(fitted.logits.astype(float) / np.exp(t), axis=1)),
        bounds=(-9, 9),
    )
    seen = answers_of(model, "test")
    expected = softmax(seen.logits.astype(float) / np.exp(best.x), axis=1)
    scores = evaluate(model, MOOD, split="test")
    right = seen.predicted == seen.truth
    bins = np.ceil(expected.max(axis=1) * 15)
    gaps = [(right - expected.max(axis=1))[bins == b].sum() for b in np.unique(bins)]
    assert scores["mood"].metrics["ece"] == pytest.approx(np.abs(gaps).sum() / 30, abs=1e-3)
    assert (scores.model, scores.before.model) == ("model+temperature", "model")
    # A temperature moves no answer.
    for metric in ("accuracy", "matthews"):
        assert scores["mood"].metrics[metric] == scores.before["mood"].metrics[metric]
    assert scores["mood"].note == ""
    assert scores.before["mood"].metrics["ece"] != scores["mood"].metrics["ece"]


def test_the_examples_of_the_fit_are_said_to_be_no_check(model):
    calibrate(model, MOOD, "temperature", model / FILE)
    note = evaluate(model, MOOD)["mood"].note
    assert "the repair was fitted on mood: validation itself." in note


def test_a_temperature_at_its_end_is_said(model):
    right = answers_of(model, "validation").predicted
    agreed = tuple(
        example._replace(label=int(label))
        for example, label in zip(SPLITS["validation"], right, strict=True)
    )
    record = calibrate(
        model, replace(MOOD, splits={"validation": agreed}), "temperature", model / "t.json"
    )
    assert (
        record.note == "temperature: no answer is wrong, and the repair goes to its end, 4.54e-05."
    )
    opposed = tuple(one._replace(label=1 - one.label) for one in agreed)
    record = calibrate(
        model, replace(MOOD, splits={"validation": opposed}), "temperature", model / "u.json"
    )
    assert "no less sure than right ones, and the repair goes to its end, 2.2e+04." in record.note


def test_labels_in_another_order_get_the_same_repair(model):
    calibrate(model, MOOD, "isotonic", model / FILE)
    turned = tuple(example._replace(label=1 - example.label) for example in SPLITS["test"])
    other = replace(MOOD, labels=MOOD.labels[::-1], splits={"test": turned})
    first, second = (evaluate(model, task, split="test")["mood"] for task in (MOOD, other))
    for metric in ("accuracy", "ece", "smce"):
        assert first.metrics[metric] == pytest.approx(second.metrics[metric])


def test_a_repair_elsewhere_is_applied_when_given(model, tmp_path):
    calibrate(model, MOOD, "platt", tmp_path / "deep" / "platt.json")
    assert evaluate(model, MOOD, split="test").before is None
    found = evaluate(model, MOOD, split="test", repair=tmp_path / "deep" / "platt.json")
    repair = fit_repair(
        "platt",
        answers_of(model, "validation").probabilities,
        answers_of(model, "validation").truth,
    )
    expected = repair.apply(answers_of(model, "test").probabilities)
    accuracy = np.mean(expected.argmax(axis=1) == [e.label for e in SPLITS["test"]])
    assert found["mood"].metrics["accuracy"] == pytest.approx(accuracy)


def test_the_figures_after_are_of_examples_left_out_of_the_fit():
    """An isotonic fit to labels that mean nothing looks perfect only on its own examples."""
    count = 400
    random = np.random.default_rng(0)
    share = random.uniform(0.01, 0.99, size=count)
    logits = np.log(np.stack([1 - share, share], axis=1))
    answers = Answers(logits, random.integers(2, size=count), np.arange(count), count)
    same = fit_repair("isotonic", answers.probabilities, answers.truth)
    own = log_loss(answers.truth, same.apply(answers.probabilities))
    left_out = cross_fitted("isotonic", answers).probabilities
    assert own < np.log(2) < log_loss(answers.truth, np.clip(left_out, 1e-3, 1))


def test_a_sentence_is_in_one_fold():
    """Tokens of a sentence are alike here, so one fit gives them one probability."""
    random = np.random.default_rng(1)
    share, truth = random.uniform(0.1, 0.9, size=30), random.integers(2, size=30)
    owners = np.repeat(np.arange(30), 20)
    logits = np.log(np.stack([1 - share, share], axis=1))[owners]
    whole = cross_fitted("platt", Answers(logits, truth[owners], owners, 30))
    apart = cross_fitted("platt", Answers(logits, truth[owners], np.arange(600), 600))
    for answers, same in ((whole, True), (apart, False)):
        by_sentence = answers.probabilities[:, 1].reshape(30, 20)
        assert (np.ptp(by_sentence, axis=1) == 0).all() == same


def test_other_weights_refuse_a_repair_that_is_given_and_pass_over_the_models_own(model):
    calibrate(model, MOOD, "temperature", model / FILE)
    weights = load_file(model / "model.safetensors")
    weights["classifier.weight"] *= 2
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="the repair was fitted to other weights"):
        evaluate(model, MOOD, repair=model / FILE)
    scores = evaluate(model, MOOD)
    assert (scores.model, scores.before) == ("model", None)
    (note,) = scores.notes
    assert note.startswith(f"{model / FILE}: was fitted to other weights")
    assert f"Remove it, and fit it anew: alliage calibrate {model} --task TASK" in note


def test_other_labels_refuse_a_repair_that_is_given_and_pass_over_the_models_own(model, tmp_path):
    calibrate(model, MOOD, "temperature", model / FILE)
    document = json.loads((model / FILE).read_text()) | {"labels": ["good", "bad"]}
    (tmp_path / "other.json").write_text(json.dumps(document))
    with pytest.raises(Misfit, match=r"mood: the repair was fitted on mood .*other labels"):
        evaluate(model, MOOD, repair=tmp_path / "other.json")
    (model / FILE).write_text(json.dumps(document))
    assert evaluate(model, MOOD).before is None


@pytest.mark.parametrize(
    "content", ["{}", '{"repair": 1}', '{"repair": {"repair": "temprature"}, "labels": []}', "[1]"]
)
def test_files_of_no_repair_are_refused(model, content):
    (model / FILE).write_text(content)
    with pytest.raises(AlliageError, match=r"calibration\.json"):
        evaluate(model, MOOD)
    with pytest.raises(UsageError, match="does not exist"):
        read_repair(model / "nothing.json")


def test_all_that_is_wrong_is_said_at_once(model):
    with pytest.raises(UsageError) as caught:
        calibrate(model, replace(MOOD, kind="regression", labels=()), "temprature", model)
    text = str(caught.value)
    assert "no repair 'temprature'. Did you mean 'temperature'?" in text
    assert "answers of regression have no confidence" in text
    assert "exists already" in text
    with pytest.raises(UsageError, match="platt is of classes"):
        calibrate(model, replace(MOOD, kind="multiple-choice", labels=()), "platt", model / FILE)


def test_a_handful_of_examples_is_too_few(model):
    with pytest.raises(AlliageError, match="4 examples are too few"):
        calibrate(model, MOOD, "temperature", model / FILE, limit=4)
    assert not (model / FILE).exists()


def test_choices_have_a_temperature_whatever_their_number():
    """Examples with two and with three choices: no probability where there is no choice."""
    random = np.random.default_rng(2)
    logits = random.normal(size=(200, 3))
    logits[::2, 2] = -np.inf
    truth = np.array([int(np.argmax(row + random.gumbel(size=3))) for row in 0.5 * logits])
    answers = Answers(logits, truth, np.arange(200), 200)
    repaired = cross_fitted("temperature", answers).probabilities
    assert (repaired[::2, 2] < 1e-100).all()
    assert log_loss(truth, repaired, labels=[0, 1, 2]) < log_loss(
        truth, answers.probabilities, labels=[0, 1, 2]
    )
