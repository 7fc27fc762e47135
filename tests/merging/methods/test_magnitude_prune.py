"""Magnitude pruning by hand, against a sort in numpy, and streamed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.errors import UsageError
from alliage.merging import parse_recipe
from alliage.merging.methods.magnitude_prune import PruneThresholds, magnitude_prune
from tests.merging.methods.through_engine import assert_streamed_is_whole

DELTAS = torch.tensor([[4.0, -2.0, 1.0, -8.0], [-1.0, 6.0, 3.0, 2.0]])


def test_pruned_and_added_by_hand():
    # half of four entries stay: [4, ., ., -8] and [., 6, 3, .]
    assert magnitude_prune(DELTAS, density=0.5).tolist() == [4.0, 6.0, 3.0, -8.0]
    # ⌊4·0.49⌋ = 1 stays: [., ., ., -8] and [., 6, ., .]
    assert magnitude_prune(DELTAS, density=0.49).tolist() == [0.0, 6.0, 0.0, -8.0]
    # -8·2·0.5 and 6·(-1)·0.5 + 4·2·0.5, of three entries each: [4, -2, ., -8] and [., 6, 3, 2]
    weighted = magnitude_prune(DELTAS, density=0.75, weight=torch.tensor([2.0, -1.0]), scale=0.5)
    assert weighted.tolist() == [4.0, -5.0, -1.5, -9.0]


def test_each_model_has_its_density():
    # [., ., ., -8] and all of the other
    kept = magnitude_prune(DELTAS, density=torch.tensor([0.25, 1.0]))
    assert kept.tolist() == [-1.0, 6.0, 3.0, -6.0]


def test_of_equal_magnitudes_the_first_stay():
    level = torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0]])
    assert magnitude_prune(level, density=0.6).tolist() == [1.0, -1.0, 0.0, 0.0, 2.0]


def test_nothing_stays_at_density_zero_and_everything_at_one():
    assert magnitude_prune(DELTAS, density=0.0).tolist() == [0.0] * 4
    assert magnitude_prune(DELTAS, density=1.0).tolist() == [3.0, 4.0, 4.0, -6.0]


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_is_a_sort_in_numpy(size, density, seed, level):
    draw = np.random.default_rng(seed)
    deltas = draw.standard_normal((3, size)).astype(np.float32)
    deltas = deltas.round() if level else deltas
    expected = np.zeros(size, np.float32)
    for row in deltas:
        order = np.lexsort((np.arange(size), -np.abs(row)))  # the largest first, then the first
        kept = order[: size if density == 1 else int(size * density)]
        expected[kept] += row[kept]
    found = magnitude_prune(torch.from_numpy(deltas), density=density)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("trim", ["tensor", "module", "model"])
def test_what_is_pruned_as_one_vector(trim):
    assert PruneThresholds.scope(trim=trim, density=[0.1]) == trim


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_streamed_it_is_the_whole(tmp_path, density, coarse):
    parameters = {"density": density, "scale": 0.7}
    assert_streamed_is_whole(tmp_path, "magnitude_prune", parameters, coarse=coarse)


@pytest.mark.parametrize("value", [-0.1, 1.5, "most"])
def test_densities_that_are_no_share_are_refused(value):
    content = {"method": "magnitude_prune", "base": "b", "models": ["a"]}
    with pytest.raises(UsageError, match="density"):
        parse_recipe(content | {"parameters": {"density": value}}).settings()
