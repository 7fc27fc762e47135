"""SCE by hand, against dense numpy in float64, and streamed."""

import numpy as np
import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import parse_recipe
from alliage.merging.methods.sce import Selection, sce
from tests.merging.methods.through_engine import assert_streamed_is_whole

# two models differ by 4, 6, 2, 0 and 8: variances 4, 9, 1, 0 and 16, the halves' squares
DELTAS = torch.tensor([[3.0, 4.0, 1.0, 2.0, -6.0], [-1.0, -2.0, 3.0, 2.0, 2.0]])


def test_selected_weighed_and_erased_by_hand():
    # half of the four positions that differ: the second and the last. Of [4, -6] and [-2, 2] the
    # squares are 52 and 8; sums 2 and -4, so that the first alone stays
    expected = torch.tensor([0.0, 4.0, 0.0, 0.0, -6.0])
    torch.testing.assert_close(sce(DELTAS, density=0.5), expected, rtol=1e-6, atol=0)


def test_what_agrees_is_averaged_by_squares_by_hand():
    # all positions: squares 66 and 22, shares 3/4 and 1/4; sums 2, 2, 4, 4, -4
    found = sce(DELTAS, density=1.0)
    expected = [3.0, 4.0, 0.75 * 1 + 0.25 * 3, 2.0, -6.0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)
    # the mean of the squares is 88/5, below the floor: equal shares
    assert sce(DELTAS, density=1.0, floor=17.7).tolist() == [3.0, 4.0, 2.0, 2.0, -6.0]


def test_cancelled_signs_are_positive():
    assert sce(torch.tensor([[2.0, 1.0], [-2.0, 1.0]]), density=1.0).tolist() == [2.0, 1.0]


def test_where_models_do_not_differ_nothing_is_selected():
    twins = torch.tensor([[0.1, -0.7, 1 / 3]]).repeat(3, 1)
    assert not sce(twins, density=0.9).any()
    torch.testing.assert_close(sce(twins, density=1.0), twins[0])


def test_of_equal_variances_the_first_are_selected():
    level = torch.tensor([[1.0, 1.0, 1.0, 1.0, 3.0], [-0.5, -0.5, -0.5, -0.5, 0.0]])
    assert sce(level, density=0.6).tolist() == [1.0, 1.0, 0.0, 0.0, 3.0]


def test_the_first_pass_looks_at_blocks_in_any_order():
    deltas = torch.randn(3, 9001, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    found = []
    for order in (1, -1):
        reduction = Selection(3, 9001, density=0.3, floor=0.0)
        if order < 0:
            reduction.sample(deltas[:, ::7])
        passes, result = 0, reduction.result()
        while result is None:
            passes += 1
            for place, block in list(enumerate(torch.split(deltas, 4096, dim=1)))[::order]:
                reduction.update(block, place)
            result = reduction.result()
        found.append(result)
    assert found[0] == found[1]
    assert 3 <= passes <= 6
    assert sum(found[0]["shares"]) == pytest.approx(1, rel=1e-15)


def reference(deltas, density):
    """SCE in float64, by sorting."""
    variance = deltas.var(axis=0)
    wanted = int(density * np.count_nonzero(variance)) if density < 1 else variance.size
    selected = np.zeros(variance.size, bool)
    selected[np.argsort(-variance, kind="stable")[:wanted]] = True
    kept = deltas * selected
    squares = (kept**2).mean(axis=1)
    agrees = np.where(kept.sum(axis=0) >= 0, kept > 0, kept < 0)
    weights = agrees * squares[:, None]
    return (weights * kept).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-300)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9, 1.0])
def test_it_is_dense_numpy(density):
    draw = np.random.default_rng(0)
    deltas = draw.standard_normal((4, 800)).astype(np.float32)
    deltas *= np.float32([[1], [2], [0.5], [3]])
    deltas[:, draw.random(800) < 0.3] = 0.25  # there the models are equal
    found = sce(torch.from_numpy(deltas), density=density).numpy()
    np.testing.assert_allclose(found, reference(deltas.astype(np.float64), density), rtol=1e-5)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_streamed_it_is_the_whole(tmp_path, density, coarse):
    assert_streamed_is_whole(tmp_path, "sce", {"density": density}, coarse=coarse)


@pytest.mark.parametrize("wrong", [{"density": 1.5}, {"floor": -1}])
def test_what_is_out_of_range_is_refused(wrong):
    content = {"method": "sce", "base": "b", "models": ["a"], "parameters": wrong}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        parse_recipe(content).settings()
