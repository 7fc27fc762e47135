"""The regression and its interval, and that a task that is left out is left out."""

import dataclasses

import numpy as np
import pytest

from alliage.geometry.forecasting.model import Model, leave_one_task_out

TASKS = ["a", "b", "c", "d", "e"]


def _merges(seed=0, noise=0.1):
    """Losses 2·x + 1 of all ordered pairs of five tasks."""
    random = np.random.default_rng(seed)
    pairs = [(one, two) for one in TASKS for two in TASKS if one != two]
    values = random.uniform(0, 10, (len(pairs), 1))
    losses = 2 * values[:, 0] + 1 + noise * random.standard_normal(len(pairs))
    return values, losses, [one for one, _ in pairs], [frozenset(pair) for pair in pairs]


def test_a_line_is_found_and_its_interval_is_its_noise() -> None:
    model = Model.fit(*_merges(), ["x"])
    # A ridge of 0.03 shrinks the slope by 1.03.
    slope = float(np.diff(model.forecast(np.array([[0.0], [1.0]])))[0])
    assert slope == pytest.approx(2 / 1.03, rel=0.01)
    assert 0.1 < model.width < 1.0


def test_ridge_against_the_normal_equations() -> None:
    values, losses, tasks, members = _merges(noise=3.0)
    z = (values[:, 0] - values.mean()) / values.std()
    weight = (z @ (losses - losses.mean())) / (len(z) * 1.03)
    model = Model.fit(values, losses, tasks, members, ["x"])
    assert model.weights[0] == pytest.approx(weight, rel=1e-12)
    assert model.intercept == pytest.approx(losses.mean())


def test_nothing_of_the_task_that_is_left_out_is_seen() -> None:
    values, losses, tasks, members = _merges()
    honest, widths = leave_one_task_out(values, losses, tasks, members, ["x"])
    # Whatever the task's own merges lost, on either side, its forecasts stay the same.
    spoiled = losses.copy()
    for place, group in enumerate(members):
        if "c" in group:
            spoiled[place] = 1e6
    again, again_widths = leave_one_task_out(values, spoiled, tasks, members, ["x"])
    own = np.array([task == "c" for task in tasks])
    assert np.array_equal(honest[own], again[own])
    assert np.array_equal(widths[own], again_widths[own])
    assert not np.array_equal(honest[~own], again[~own])  # the others have seen it


def test_partners_teach_what_tasks_do_not() -> None:
    # Within a task the loss grows with x, while tasks of larger x lose less.
    tasks = [task for task in TASKS for _ in range(4)]
    members = [frozenset((task, f"{task}{place}")) for task in TASKS for place in range(4)]
    level = np.repeat(np.arange(5.0), 4)
    step = np.tile(np.arange(4.0), 5)
    values, losses = (10 * level + step)[:, None], 100 - 10 * level + step
    fits = {
        partners: Model.fit(values, losses, tasks, members, ["x"], partners=partners)
        for partners in (False, True)
    }
    assert fits[False].weights[0] < 0 < fits[True].weights[0]


def test_outside_of_what_was_learned() -> None:
    model = Model.fit(*_merges(), ["x"])
    assert model.outside({"x": 5.0}) == []
    assert "x lies outside" in model.outside({"x": 30.0})[0]
    assert "not defined" in model.outside({"x": float("nan")})[0]


def test_as_json_and_back() -> None:
    model = Model.fit(*_merges(), ["x"])
    assert Model.from_json(dataclasses.asdict(model)) == model
