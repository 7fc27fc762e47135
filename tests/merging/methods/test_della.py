"""DELLA on draws chosen by hand, its chances against scipy's ranks, its mean over many draws."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from alliage.errors import UsageError
from alliage.merging import parse_recipe
from alliage.merging.methods.della import _ROWS_AT_ONCE, della, della_linear
from tests.merging.methods.through_engine import assert_streamed_is_whole

# one matrix of two rows and three columns for each of two models; by rank the chances of a row at
# density 0.5 and epsilon 0.25 are 0.25, 0.5 and 0.75
DELTAS = torch.tensor([[[1.0, -4.0, 2.0], [6.0, 3.0, 0.5]], [[-2.0, 1.0, 8.0], [1.0, 2.0, -3.0]]])
CHANCES = torch.tensor([[[0.25, 0.75, 0.5], [0.75, 0.5, 0.25]], [[0.5, 0.25, 0.75]] * 2])
CHANCES[1, 1] = torch.tensor([0.25, 0.5, 0.75])
GIVEN = {"density": 0.5, "epsilon": 0.25}


def test_every_entry_stays_below_its_chance_and_is_rescaled_by_it_by_hand():
    below = della_linear(DELTAS, uniform=CHANCES - 2**-20, **GIVEN)
    # 1/0.25 - 2/0.5 = 0, -4/0.75 + 1/0.25, 2/0.5 + 8/0.75; 6/0.75 + 1/0.25, 3/0.5 + 2/0.5,
    # 0.5/0.25 - 3/0.75
    expected = [[0.0, 4 - 16 / 3, 4 + 32 / 3], [12.0, 10.0, -2.0]]
    torch.testing.assert_close(below, torch.tensor(expected), rtol=0, atol=2e-6)
    assert not della_linear(DELTAS, uniform=CHANCES, **GIVEN).any()


def test_other_rescalings_by_hand():
    draws = torch.full_like(DELTAS, 0.6)  # the largest of each row stays
    kept = della_linear(DELTAS, uniform=draws, rescale="none", **GIVEN)
    assert kept.tolist() == [[0.0, -4.0, 8.0], [6.0, 0.0, -3.0]]
    # sums of magnitudes: 16.5 of which 10 stay, 17 of which 11 stay
    l1 = della_linear(DELTAS, uniform=draws, rescale="l1", weight=torch.tensor([1.0, 2.0]), **GIVEN)
    expected = [[0.0, -4 * 1.65, 16 * 17 / 11], [6 * 1.65, 0.0, -6 * 17 / 11]]
    torch.testing.assert_close(l1, torch.tensor(expected), rtol=1e-6, atol=0)
    nothing = della_linear(DELTAS, uniform=torch.full_like(DELTAS, 0.9), rescale="l1", **GIVEN)
    assert not nothing.any()


def test_signs_are_elected_among_what_stays_by_hand():
    draws = torch.full_like(DELTAS, 0.4)  # the two largest of each row stay
    # [., -4, 2], [6, 3, .] and [-2, ., 8], [., 2, -3]: no two of a place are of opposite signs
    kept = della(DELTAS, uniform=draws, rescale="none", **GIVEN)
    assert kept.tolist() == [[-2.0, -4.0, 5.0], [6.0, 2.5, -3.0]]
    # all stay: votes -1, -3, 10; 7, 5, -2.5
    given = {"uniform": torch.zeros_like(DELTAS), "rescale": "none", "combine": "sum", **GIVEN}
    assert della(DELTAS, **given).tolist() == [[-2.0, -4.0, 10.0], [7.0, 5.0, -3.0]]


@pytest.mark.parametrize("density", [0.05, 0.3, 0.95])
def test_the_window_is_narrowed_where_chances_would_leave_their_range(density):
    row = torch.arange(1.0, 6.0)[None, None]
    width = min(0.2, density, 1 - density)
    ends = torch.tensor([density - width, density, density + width])
    for draw, stays in ((ends - 1e-5, True), (ends + 1e-5, False)):
        draws = torch.ones(1, 1, 5)
        draws[0, 0, ::2] = draw.clamp(min=0)
        kept = della_linear(row, density=density, epsilon=0.2, uniform=draws, rescale="none")[0]
        # a chance of zero is that of no draw
        assert (kept[::2] != 0).tolist() == [stays and density > width, stays, stays]


def test_chances_are_by_scipys_ranks_in_rows():
    draw = torch.Generator().manual_seed(0)
    shape = (1, _ROWS_AT_ONCE // 100 + 7, 100)  # more rows than are held at once
    deltas, draws = (torch.rand(shape, generator=draw) for _ in range(2))
    deltas = (10 * deltas - 5).round()  # with equal magnitudes
    kept = della_linear(deltas, density=0.4, epsilon=0.3, uniform=draws)
    ranks = rankdata(np.abs(deltas[0].numpy()), method="ordinal", axis=1) - 1
    chances = (0.1 + 0.6 * ranks / 99).astype(np.float32)
    close = np.abs(draws[0].numpy() - chances) < 1e-6  # where roundings decide
    expected = np.where(draws[0].numpy() < chances, deltas[0].numpy() / chances, 0)
    np.testing.assert_allclose(kept.numpy()[~close], expected[~close], rtol=1e-5)
    assert close.mean() < 1e-4


@pytest.mark.parametrize(
    ("shape", "rows"), [((24,), (1, 24)), ((6, 4), (6, 4)), ((6, 2, 2), (6, 4)), ((), (1, 1))]
)
def test_what_a_row_is(shape, rows):
    deltas, draws = torch.randn(2, *rows, generator=torch.Generator().manual_seed(1)), 0.3
    uniform = torch.full(rows, draws).expand(2, *rows)
    expected = della_linear(deltas, uniform=uniform, **GIVEN).reshape(shape)
    found = della_linear(deltas.reshape(2, *shape), uniform=uniform.reshape(2, *shape), **GIVEN)
    assert torch.equal(found, expected)


def test_an_only_entry_has_the_density_for_its_chance():
    one = torch.tensor([[3.0]])
    assert della_linear(one, uniform=torch.tensor([[0.49]]), **GIVEN).tolist() == [6.0]
    assert della_linear(one, uniform=torch.tensor([[0.5]]), **GIVEN).tolist() == [0.0]


def test_the_mean_over_many_draws_is_the_sum():
    total = sum(della_linear(DELTAS, seed=seed, **GIVEN) for seed in range(3000)) / 3000
    # variance of one draw: d²(1 − p)/p, summed over the models
    error = (DELTAS.square() * (1 - CHANCES) / CHANCES / 3000).sum(0).sqrt()
    assert ((total - DELTAS.sum(0)).abs() < 4 * error).all()


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
@pytest.mark.parametrize("method", ["della_linear", "della"])
def test_streamed_it_is_the_whole(tmp_path, method, rescale, coarse):
    parameters = {"density": 0.3, "epsilon": 0.2, "rescale": rescale, "seed": 11}
    assert_streamed_is_whole(tmp_path, method, parameters, coarse=coarse)


@pytest.mark.parametrize("wrong", [{"density": 0}, {"epsilon": -0.1}, {"epsilon": 2}, {"seed": -1}])
def test_what_is_out_of_range_is_refused(wrong):
    content = {"method": "della_linear", "base": "b", "models": ["a"], "parameters": wrong}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        parse_recipe(content).settings()
