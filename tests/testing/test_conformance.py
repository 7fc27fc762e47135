import math
from typing import Annotated

import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import list_methods, method, registry
from alliage.merging.registry import weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber
from alliage.testing import check_method

NEUTRAL = {"flip_signs": {"probability": 0.0}}


@pytest.mark.parametrize("name", list_methods())
def test_every_method_conforms(name):
    check_method(name, neutral=NEUTRAL.get(name))


def test_unknown_methods_get_the_nearest_name():
    with pytest.raises(UsageError, match="'ties'"):
        check_method("tiess")


def test_ranges():
    assert 0 in In(0, 1)
    assert 0 not in In(0, 1, open_low=True)
    assert float("inf") not in In(0)
    assert str(In(0, 1, open_low=True)) == "(0, 1]"
    assert str(In(0)) == "[0, inf)"


def mean_of_factors(B, A):
    """Average the factors."""
    return torch.stack(list(B)).mean(dim=0), torch.stack(list(A)).mean(dim=0)


def two_side_by_side(
    B, A, *, scale: Annotated[float, In(-math.inf), Factor()] = 1.0, keep: bool = True
):
    """Put two adapters' factors side by side.

    Args:
        scale: of the result.
        keep: whether anything is kept.
    """
    first, second = B
    return scale * keep * torch.cat([first, second], dim=1), torch.cat(list(A))


def mean_in_steps(deltas, *, steps: Annotated[int, In(0, open_low=True)] = 5):
    """Take the mean, in steps.

    Args:
        steps: how many.
    """
    assert steps > 0
    return (deltas / steps).mean(dim=0) * steps


def weighed(
    deltas, *, weight: Annotated[PerModelNumber, PerModel(), In(1)] = 1.0, kept: float = 1.0
):
    """Weigh models by what may not be below one.

    Args:
        weight: of each model.
        kept: the share of all that stays.
    """
    assert torch.as_tensor(weight).min() >= 1
    return kept * weighted_sum(deltas, weight)


def seldom(deltas, *, weight: Annotated[PerModelNumber, PerModel(), In(0, 0.5)] = 0.5):
    """Weigh models by what may not be above a half, twice.

    Args:
        weight: of each model.
    """
    assert torch.as_tensor(weight).max() <= 0.5
    return 2 * weighted_sum(deltas, weight)


SOUND = [
    ("factors", mean_of_factors, {"homogeneous": False}),
    (
        "factors",
        two_side_by_side,
        {"models": 2, "rank": lambda ranks, d_out, d_in, **_: (sum(ranks), True)},
    ),
    ("tensor", mean_in_steps, {}),
    ("block", weighed, {}),
    ("block", weighed, {"models": 5}),
    ("block", seldom, {"models": 6}),
]


@pytest.mark.parametrize(("unit", "function", "declared"), SOUND)
def test_sound_methods_are_told_nothing(monkeypatch, unit, function, declared):
    list_methods()  # all others are there
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    method("sound", unit=unit, space="delta", paper="none", **declared)(function)
    check_method("sound")
