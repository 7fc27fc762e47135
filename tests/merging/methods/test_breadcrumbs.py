"""Model Breadcrumbs by hand, against a sort in numpy, and streamed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.errors import UsageError
from alliage.merging import parse_recipe
from alliage.merging.methods.breadcrumbs import breadcrumbs, breadcrumbs_ties
from tests.merging.methods.through_engine import assert_streamed_is_whole

DELTAS = torch.tensor([[4.0, -2.0, 1.0, -8.0], [-1.0, 6.0, 3.0, -2.0]])
HALF = {"density": 0.5, "gamma": 0.25}  # the largest of four falls away, of the rest two stay


def test_both_ends_are_dropped_by_hand():
    # [4, -2, ., .] and [., ., 3, -2]
    assert breadcrumbs(DELTAS, **HALF).tolist() == [4.0, -2.0, 3.0, -2.0]
    weighted = breadcrumbs(DELTAS, weight=torch.tensor([1.0, -2.0]), scale=0.5, **HALF)
    assert weighted.tolist() == [2.0, -1.0, -3.0, 2.0]


def test_signs_are_elected_among_what_stays_by_hand():
    # all but the largest: [4, -2, 1, .] and [-1, ., 3, -2]: votes 3, -2, 4, -2
    given = {"density": 0.75, "gamma": 0.25}
    assert breadcrumbs_ties(DELTAS, **given).tolist() == [4.0, -2.0, 2.0, -2.0]
    assert breadcrumbs_ties(DELTAS, combine="sum", **given).tolist() == [4.0, -2.0, 4.0, -2.0]
    # votes of 4 - 5 < 0 in the first place, and 16/6 the mean in the third
    weighted = breadcrumbs_ties(DELTAS, weight=torch.tensor([1.0, 5.0]), **given)
    assert torch.equal(weighted, torch.tensor([-1.0, -2.0, 16 / 6, -2.0]))
    # 1 and -1 cancel: positive
    assert breadcrumbs_ties(torch.tensor([[1.0], [-1.0]]), density=1.0).tolist() == [1.0]


def test_a_share_of_outliers_below_one_entry_drops_none():
    # ⌊4·0.2⌋ = 0: the two largest stay
    assert breadcrumbs(DELTAS[:1], density=0.5, gamma=0.2).tolist() == [4.0, 0.0, 0.0, -8.0]


def test_the_density_goes_before_the_outliers():
    # three of four stay, so that one falls away and not two
    assert breadcrumbs(DELTAS[:1], density=0.75, gamma=0.5).tolist() == [4.0, -2.0, 1.0, 0.0]
    assert breadcrumbs(DELTAS[:1], density=1.0, gamma=0.5).tolist() == DELTAS[0].tolist()
    assert breadcrumbs(DELTAS[:1], density=0.0, gamma=0.5).tolist() == [0.0] * 4


def test_of_equal_magnitudes_the_first_count_as_larger():
    level = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])
    # the first is an outlier, the next two stay
    kept = breadcrumbs(level, density=0.4, gamma=0.2)
    assert kept.tolist() == [0.0, -1.0, 1.0, 0.0, 0.0]


def test_each_model_has_its_shares():
    # the largest of the first alone, and the second largest of the other
    kept = breadcrumbs(DELTAS, density=[0.25, 0.25], gamma=[0.0, 0.25])
    assert kept.tolist() == [0.0, 0.0, 3.0, -8.0]


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_is_a_sort_in_numpy(size, density, gamma, seed, level):
    draw = np.random.default_rng(seed)
    deltas = draw.standard_normal((3, size)).astype(np.float32)
    deltas = deltas.round() if level else deltas
    kept = size if density == 1 else int(density * size)
    dropped = min(int(gamma * size), size - kept)
    expected = np.zeros(size, np.float32)
    for row in deltas:
        order = np.lexsort((np.arange(size), -np.abs(row)))[dropped : dropped + kept]
        expected[order] += row[order]
    found = breadcrumbs(torch.from_numpy(deltas), density=density, gamma=gamma)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("shares", [(0.2, 0.01), (0.5, 0.4), (1.0, 0.1), (0.0, 0.1)])
def test_streamed_it_is_the_whole(tmp_path, method, shares, coarse):
    density, gamma = shares
    parameters = {"density": density, "gamma": gamma, "scale": 0.7}
    assert_streamed_is_whole(tmp_path, method, parameters, coarse=coarse)


@pytest.mark.parametrize("wrong", [{"density": 1.5}, {"gamma": -0.1}, {"gamma": "most"}])
@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
def test_what_is_no_share_is_refused(method, wrong):
    content = {"method": method, "base": "b", "models": ["a"], "parameters": wrong}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        parse_recipe(content).settings()
