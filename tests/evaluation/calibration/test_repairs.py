"""Repairs against scikit-learn's own calibrators, and what each promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit, softmax

from alliage.evaluation.calibration import (
    confidence,
    post_processing_gap,
    smooth_calibration_error,
)
from alliage.evaluation.calibration.repairs import (
    REPAIRS,
    Isotonic,
    LipschitzIsotonic,
    Platt,
    Temperature,
    fit_repair,
    repair_from_json,
)

NAMES = ["temperature", "platt", "isotonic", "lipschitz-isotonic"]


def binary(n=400, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 2, n)
    return expit(logits), (rng.random(n) < expit(0.6 * logits - 0.4)).astype(int)


def classes(n=400, k=4, seed=0):
    """Logits of an overconfident model, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, k))
    shares = softmax(logits, axis=1).cumsum(axis=1)
    return 2.5 * logits, (rng.random((n, 1)) > shares).sum(axis=1).clip(0, k - 1)


def test_the_registry():
    assert list(REPAIRS) == NAMES


@pytest.mark.parametrize("weighted", [False, True])
def test_temperature_as_scikit_learn(weighted):
    from sklearn.calibration import _TemperatureScaling

    logits, labels = classes()
    weights = np.random.default_rng(1).random(len(labels)) if weighted else None
    rows = softmax(logits, axis=1)
    found = Temperature.fit(rows, labels, weights=weights)
    theirs = _TemperatureScaling().fit(logits, labels, sample_weight=weights)
    assert found.temperature == pytest.approx(1 / theirs.beta_, rel=1e-6)
    assert found.apply(rows) == pytest.approx(theirs.predict(logits), abs=1e-7)
    assert found.temperature == pytest.approx(2.5, abs=0.4)


def test_temperature_is_where_the_likelihood_is_flat():
    logits, labels = classes()
    found = Temperature.fit(softmax(logits, axis=1), labels).temperature

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()

    slope = (loss(found * (1 + 1e-5)) - loss(found * (1 - 1e-5))) / 2e-5
    assert abs(slope) < 1e-9


def test_temperature_by_hand():
    # Three of four right at 0.9: σ(ln 9 / T) = ¾, T = ln 9 / ln 3.
    found = Temperature.fit([0.9] * 4, [1, 1, 1, 0])
    assert found.temperature == pytest.approx(2, rel=1e-12)
    assert found.apply([0.9, 0.1]) == pytest.approx(np.array([0.75, 0.25]))


def test_temperature_keeps_every_answer():
    logits, labels = classes()
    rows = softmax(logits, axis=1)
    repaired = Temperature.fit(rows, labels).apply(rows)
    assert (np.argsort(repaired, axis=1) == np.argsort(rows, axis=1)).all()


def test_temperature_at_its_ends():
    right, wrong = [[0.9, 0.1], [0.2, 0.8]], [0, 1]
    assert Temperature.fit(right, wrong).temperature == pytest.approx(np.exp(-10))
    assert Temperature.fit(right, [1, 0]).temperature == pytest.approx(np.exp(10))
    assert Temperature.fit([[1.0, 0.0], [0.0, 1.0]], wrong).apply([[1.0, 0.0]]).tolist() == [[1, 0]]


def test_platt_as_scikit_learn():
    from sklearn.calibration import _SigmoidCalibration

    values, labels = binary()
    found = Platt.fit(values, labels)
    theirs = _SigmoidCalibration().fit(logit(values), labels)
    assert found.slopes[0] == pytest.approx(-theirs.a_, rel=1e-4)
    assert found.intercepts[0] == pytest.approx(-theirs.b_, rel=1e-4)
    assert found.apply(values) == pytest.approx(theirs.predict(logit(values)), abs=1e-5)


def test_platt_solves_its_equations():
    values, labels = binary(60)
    found = Platt.fit(values, labels).apply(values)
    positives = labels.sum()
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (62 - positives))
    assert (found - target).sum() == pytest.approx(0, abs=1e-6)
    assert ((found - target) * logit(values)).sum() == pytest.approx(0, abs=1e-6)


def test_platt_of_separable_events_is_finite():
    found = Platt.fit([0.0, 0.2, 0.8, 1.0], [0, 0, 1, 1])
    assert np.isfinite([*found.slopes, *found.intercepts]).all()
    assert (np.diff(found.apply([0.0, 0.2, 0.8, 1.0])) > 0).all()


def test_isotonic_by_hand():
    # Pools 0.4 and 0.6, whose labels fall from 1 to 0; in between, halfway.
    found = Isotonic.fit([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1])
    at = [0.0, 0.2, 0.3, 0.4, 0.6, 0.7, 1.0]
    assert found.apply(at) == pytest.approx(np.array([0, 0, 0.25, 0.5, 0.5, 0.75, 1]))


def test_lipschitz_isotonic_gains_the_gap():
    values, labels = binary()
    found = LipschitzIsotonic.fit(values, labels)
    repaired = found.apply(values)
    gained = ((labels - values) ** 2).mean() - ((labels - repaired) ** 2).mean()
    assert gained == pytest.approx(post_processing_gap(values, labels), abs=1e-12)
    order = np.argsort(values)
    slopes = np.diff(repaired[order]) / np.diff(values[order])
    assert (slopes > -1e-9).all()
    assert (slopes < 2 + 1e-9).all()
    # Lines are kept by their ends.
    assert len(found.changes[0].places) < 100


def test_lipschitz_isotonic_by_hand():
    # 0.4 and 0.6 with labels 0 and 1 move out by 0.1 each; so do all beyond them, up to 0 and 1.
    found = LipschitzIsotonic.fit([0.4, 0.6], [0, 1])
    at = [0.0, 0.05, 0.4, 0.5, 0.6, 0.95]
    assert found.apply(at) == pytest.approx(np.array([0, 0, 0.3, 0.5, 0.7, 1]), abs=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_repaired_on_other_data(name):
    values, labels = binary(4000)
    other, truth = binary(4000, seed=1)
    before = smooth_calibration_error(other, truth)
    after = smooth_calibration_error(fit_repair(name, values, labels).apply(other), truth)
    assert before > 0.1
    # Temperature cannot move the intercept.
    assert after < (0.09 if name == "temperature" else 0.03)


@pytest.mark.parametrize("name", NAMES)
def test_classes_repaired_on_other_data(name):
    logits, labels = classes(4000)
    rows = softmax(logits, axis=1)
    others, truth = classes(4000, seed=1)
    repaired = fit_repair(name, rows, labels).apply(softmax(others, axis=1))
    assert repaired.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert repaired.min() >= 0
    before = smooth_calibration_error(*confidence(softmax(others, axis=1), truth))
    assert before > 0.1
    assert smooth_calibration_error(*confidence(repaired, truth)) < before / 3


@pytest.mark.parametrize("name", ["platt", "isotonic", "lipschitz-isotonic"])
def test_two_classes_are_one_event(name):
    values, labels = binary()
    rows = np.stack([1 - values, values], axis=1)
    found = fit_repair(name, rows, labels).apply(rows)
    assert found[:, 1] == pytest.approx(fit_repair(name, values, labels).apply(values), abs=1e-9)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("name", ["temperature", "isotonic", "lipschitz-isotonic"])
def test_weights_are_repetitions(name):
    values, labels = binary(60)
    counts = np.random.default_rng(2).integers(1, 4, 60)
    repeated = fit_repair(name, np.repeat(values, counts), np.repeat(labels, counts))
    weighted = fit_repair(name, values, labels, weights=counts)
    assert weighted.apply(values) == pytest.approx(repeated.apply(values), abs=1e-9)


def test_platt_s_weights_are_shares():
    values, labels = binary(60)
    counts = np.random.default_rng(2).integers(1, 4, 60)
    weighted = [Platt.fit(values, labels, weights=scale * counts) for scale in (1, 10)]
    assert weighted[0].slopes == pytest.approx(weighted[1].slopes, rel=1e-9)
    assert weighted[0].slopes != pytest.approx(Platt.fit(values, labels).slopes, rel=1e-3)


def test_a_class_that_nobody_gives_a_chance():
    # Isotonic maps of classes 1 and 2 give 0 everywhere; rows with nothing left become uniform.
    rows = [[0.1, 0.5, 0.4], [0.8, 0.1, 0.1], [0.9, 0.05, 0.05]]
    found = Isotonic.fit(rows, [1, 0, 0]).apply([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    assert found[0].tolist() == [1 / 3] * 3
    assert found[1].tolist() == [1, 0, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("of", ["event", "classes"])
def test_saved_and_read_again(name, of):
    logits, labels = classes(50)
    values = softmax(logits, axis=1) if of == "classes" else binary(50)[0]
    labels = labels if of == "classes" else binary(50)[1]
    repair = fit_repair(name, values, labels)
    assert repair_from_json(json.loads(json.dumps(repair.to_json()))) == repair


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [0, 1])
def test_one_label_only(name, label):
    repaired = fit_repair(name, [0.2, 0.5, 0.9], [label] * 3).apply([0.0, 0.5, 1.0])
    assert ((repaired >= 0) & (repaired <= 1)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([], [], "Expected"),
        ([float("nan")], [1], "lie in"),
        ([1.5], [1], "lie in"),
        ([0.5], [2], "Labels must be 0 or 1"),
        ([[0.5, 0.4]], [1], "row 0 sums to 0.9"),
        ([[0.5, 0.5]], [2], "classes from 0 to 1"),
        ([[[0.5]]], [0], "Expected"),
    ],
)
def test_what_cannot_be_fitted(name, values, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_repair(name, values, labels)


@pytest.mark.parametrize("name", NAMES[1:])
def test_another_number_of_classes(name):
    logits, labels = classes(50)
    repair = fit_repair(name, softmax(logits, axis=1), labels)
    with pytest.raises(ValueError, match="of 4 classes"):
        repair.apply([[0.2, 0.3, 0.5]])
    with pytest.raises(ValueError, match="of 4 classes"):
        repair.apply([0.5])
    with pytest.raises(ValueError, match="of 2 classes, not of 3"):
        fit_repair(name, [0.2, 0.7], [0, 1]).apply([[0.2, 0.3, 0.5]])


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"no repair 'temprature'\. Did you mean 'temperature'"):
        fit_repair("temprature", [0.5], [1])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no repair 'None'"),
        ({"repair": "temperature"}, "temperature must be a positive number"),
        ({"repair": "temperature", "temperature": 0}, "temperature must be a positive number"),
        ({"repair": "temperature", "temperature": "2"}, "temperature must be a positive number"),
        ({"repair": "platt", "slopes": [1.0]}, "intercepts must be a list of numbers"),
        ({"repair": "platt", "slopes": [1.0], "intercepts": [1, 2]}, "must be as many"),
        ({"repair": "platt", "slopes": [float("nan")], "intercepts": [1]}, "slopes must be a list"),
        ({"repair": "isotonic"}, "knots must be a list"),
        ({"repair": "isotonic", "knots": [3]}, "each with places and values"),
        ({"repair": "isotonic", "knots": [{"places": [1, 0], "values": [0, 1]}]}, "increasing"),
        ({"repair": "lipschitz-isotonic", "knots": [{"places": [0], "values": [0, 1]}]}, "value"),
    ],
)
def test_documents_that_are_no_repair(document, message):
    with pytest.raises(ValueError, match=message):
        repair_from_json(document)
