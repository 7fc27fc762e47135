"""Sums over pairs of models: exact, wherever blocks end, over what they are asked for."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.merging.products import Distances, ExactSum, Products, SquaredNorms, whole

KINDS = pytest.mark.parametrize("kind", [Products, Distances, SquaredNorms])


@given(st.lists(st.floats(-1e100, 1e100), max_size=60), st.randoms())
@settings(max_examples=150, deadline=None)
def test_sums_are_exact_in_any_order(values, random):
    kept = ExactSum()
    kept.add(values)
    shuffled = ExactSum()
    for value in random.sample(values, len(values)):
        shuffled.add([value])
    exact = float(sum(map(Fraction, values), Fraction(0)))
    assert kept.total() == shuffled.total() == exact


def test_a_sum_of_many_is_kept_in_a_few_floats():
    kept, values = ExactSum(), np.random.default_rng(0).random(20_000).tolist()
    kept.add(values)
    assert kept.total() == math.fsum(values)
    assert len(kept._parts) < 10


def test_worked_out_by_hand():
    models = torch.tensor([[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    assert whole(Products, models) == [[9, 0, 3], [0, 16, 4], [3, 4, 2]]
    assert whole(Distances, models) == [[0, 25, 5], [25, 0, 10], [5, 10, 0]]
    assert whole(SquaredNorms, models) == [[9, 0, 0], [0, 16, 0], [0, 0, 2]]
    assert whole(Distances, models[:1]) == [[0]]
    assert whole(Products, torch.zeros(2, 0)) == [[0, 0], [0, 0]]
    assert whole(Products, torch.tensor([2.0, 3.0])) == [[4, 6], [6, 9]]  # single numbers


@KINDS
@pytest.mark.parametrize("size", [1, 4096, 30_001])
def test_one_table_wherever_blocks_end_and_whoever_comes_first(kind, size):
    models = torch.randn(3, size, generator=torch.Generator().manual_seed(size))
    found = []
    for length in (4096, 3 * 4096, size):
        reduction = kind(3, size, over="model")
        assert reduction.result() is None
        blocks = list(enumerate(torch.split(models, length, dim=1)))
        for place, block in reversed(blocks) if length == 4096 else blocks:
            reduction.update(block, place)
        found.append(reduction.result()[kind.gives])
    assert found[0] == found[1] == found[2] == whole(kind, models)


@KINDS
def test_one_model_is_seen_too(kind):
    reduction = kind(1, 2, over="model")
    reduction.update(torch.tensor([[3.0, 4.0]]), 0)
    assert reduction.result() == {kind.gives: [[0 if kind is Distances else 25]]}


def test_small_differences_of_large_models_are_not_lost():
    one = 1000 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[7] = torch.nextafter(one[7], one[7] + 1)
    expected = float((other[7].double() - one[7].double()) ** 2)
    models = torch.stack([one, other])
    assert whole(Distances, models)[0][1] == expected
    products = whole(Products, models)
    assert products[0][0] + products[1][1] - 2 * products[0][1] != pytest.approx(expected, rel=0.01)


def test_scopes():
    assert Products.scope() == "tensor"
    assert SquaredNorms.scope() == "model"
    assert Distances.scope(over="module") == "module"
