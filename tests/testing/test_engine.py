"""The rules that hold on files find methods that break them."""

from __future__ import annotations

import pytest
import torch

from alliage.merging import describe, method, registry
from alliage.testing.engine import check_in_engine


@pytest.fixture
def registered(monkeypatch):
    """Registers a function as a block method for as long as the test lasts."""
    describe("ties")  # all others are there
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def register(function):
        method("odd", unit="block", space="weight", paper="none")(function)
        return describe("odd")

    return register


def test_a_sound_method_passes(registered):
    check_in_engine(registered(lambda weights: weights.mean(dim=0)))


def test_a_method_that_looks_beyond_its_elements_is_found(registered):
    with pytest.raises(AssertionError, match="threads and blocks"):
        check_in_engine(registered(lambda weights: weights[0] - weights.mean()))


def test_a_method_that_draws_by_itself_is_found(registered):
    with pytest.raises(AssertionError, match=r"threads and blocks|rounded once"):
        check_in_engine(registered(lambda weights: weights[0] + torch.rand(())))
