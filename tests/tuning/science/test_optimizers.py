"""One or two steps of each optimiser, worked out by hand on one parameter."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from alliage.tuning.science.optimizers import OptimizerSettings, build

START, RATE, DECAY = 2.0, 0.1, 0.5


def step(settings, gradients, decay=0.0):
    """The parameter after steps with these gradients."""
    parameter = torch.nn.Parameter(torch.tensor([START], dtype=torch.float64))
    kind, arguments = build(OptimizerSettings(**settings), RATE)
    optimizer = kind([{"params": [parameter], "weight_decay": decay}], **arguments)
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return parameter.item()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "sgd"}, 2 - 0.1 * 3 - 0.1 * 1),
        ({"name": "momentum", "momentum": 0.5}, 2 - 0.1 * 3 - 0.1 * (0.5 * 3 + 1)),
        ({"name": "adagrad"}, 2 - 0.1 * 3 / 3 - 0.1 * 1 / 10**0.5),
        (
            {"name": "rmsprop", "decay_rate": 0.5},
            2 - 0.1 * 3 / 4.5**0.5 - 0.1 * 1 / (4.5 / 2 + 0.5) ** 0.5,
        ),
        (
            {"name": "adam", "betas": (0.5, 0.5)},  # m = 1.5, 1.25; v = 4.5, 2.75
            2 - 0.1 * 3 / 3 - 0.1 * (1.25 / 0.75) / (2.75 / 0.75) ** 0.5,
        ),
        ({"name": "adamw", "betas": (0.5, 0.5)}, 2 - 0.1 - 0.1 * (5 / 3) / (11 / 3) ** 0.5),
    ],
)
def test_two_steps(settings, expected):
    assert step(settings, [3.0, 1.0]) == pytest.approx(expected, abs=1e-7)


def test_lion_steps_by_the_sign_that_knows_the_present_gradient():
    """c₂ = 0.9·m₁ + 0.1·g₂ with m₁ = 0.01·3: positive for g₂ = −0.2, negative for g₂ = −0.5.

    By sign(c_t) of course 002, the first step would stand still and the second go down.
    """
    assert step({"name": "lion"}, [3.0]) == pytest.approx(1.9)
    assert step({"name": "lion"}, [3.0, -0.2]) == pytest.approx(1.8)
    assert step({"name": "lion"}, [3.0, -0.5]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "sgd"}, 2 - 0.1 * (3 + 0.5 * 2)),
        ({"name": "sgd", "decay": "decoupled"}, 2 * (1 - 0.1 * 0.5) - 0.1 * 3),  # the same
        ({"name": "adam"}, 2 - 0.1),  # the sign of 3 + 0.5 · 2, whatever the decay
        ({"name": "adamw"}, 2 * (1 - 0.1 * 0.5) - 0.1),
        ({"name": "lion"}, 2 * (1 - 0.1 * 0.5) - 0.1),
    ],
)
def test_weight_decay_acts_on_the_weight_or_through_the_gradient(settings, expected):
    assert step(settings, [3.0], decay=DECAY) == pytest.approx(expected, abs=1e-7)


def test_momentum_remembers_l2_but_not_decoupled_decay():
    gradients = [0.0, 0.0]
    first = 2 - 0.1 * 0.5 * 2
    l2 = first - 0.1 * (0.9 * 0.5 * 2 + 0.5 * first)
    assert step({"name": "momentum"}, gradients, decay=DECAY) == pytest.approx(l2)
    decoupled = step({"name": "momentum", "decay": "decoupled"}, gradients, decay=DECAY)
    assert decoupled == pytest.approx(2 * 0.95**2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adam", "decay": "decoupled"}, "name: adamw is that"),
        ({"name": "adamw", "decay": "l2"}, "name: adam is that"),
        ({"name": "lion", "decay": "l2"}, "lion has no such form"),
        ({"name": "rmsprop", "decay": "decoupled"}, "no library has that form"),
        ({"name": "sgd", "momentum": 0.5}, "sgd knows no momentum"),
        ({"name": "lion", "epsilon": 1e-8}, "lion knows no epsilon; it knows betas"),
        ({"name": "adam", "betas": (0.9, 1.0)}, r"betas must be in \[0, 1\)"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(settings, message):
    with pytest.raises(ValidationError, match=message):
        OptimizerSettings(**settings)
