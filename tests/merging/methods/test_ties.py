"""TIES against matrices worked out by hand and against the authors' algorithm, written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.merging import get_method, ties
from alliage.merging.methods.ties import MajoritySign
from alliage.order_statistics import magnitude_thresholds, trim_rank


def test_worked_out_by_hand():
    # d = 5, K = 0.4, so k = 2: what is at least the 3rd smallest magnitude stays.
    deltas = torch.tensor(
        [
            [5.0, -1.0, 2.0, -4.0, 3.0],  # 3rd smallest 3: keeps 5, -4, 3
            [-1.0, 6.0, 4.0, -5.0, 0.5],  # 3rd smallest 4: keeps 6, 4, -5
            [2.0, -3.0, 1.0, 7.0, -8.0],  # 3rd smallest 3: keeps -3, 7, -8
        ]
    )
    # sums of what stays:      5,  3,   4,   -2,   -5
    # elected signs:           +   +    +    -     -
    # means of what agrees:    5,  6,   4, (-4-5)/2, -8
    expected = torch.tensor([5.0, 6.0, 4.0, -4.5, -8.0])
    assert torch.equal(ties(deltas, density=0.4), expected)
    assert torch.equal(ties(deltas, density=0.4, scale=0.5), expected / 2)
    assert torch.equal(ties(deltas.reshape(3, 5, 1), density=0.4), expected[:, None])


def test_cancelling_votes_take_the_majority_sign():
    # nothing is trimmed; the first sums to zero; the others elect +, +, -: majority +
    deltas = torch.tensor([[3.0, 1.0, 2.0, -1.0], [-3.0, 1.0, 2.0, -1.0]])
    assert torch.equal(ties(deltas, density=1.0), torch.tensor([3.0, 1.0, 2.0, -1.0]))
    assert torch.equal(ties(-deltas, density=1.0), torch.tensor([-3.0, -1.0, -2.0, 1.0]))
    # balanced signs: the authors' code then takes the negative side
    balanced = torch.tensor([[3.0, 1.0, -1.0], [-3.0, 1.0, -1.0]])
    assert torch.equal(ties(balanced, density=1.0), torch.tensor([-3.0, 1.0, -1.0]))


def test_weights_enter_vote_and_mean():
    deltas = torch.tensor([[1.0, 4.0], [-2.0, 8.0]])
    # votes: 3·1 - 1·2 > 0; mean of agreeing: 1; and (3·4 + 1·8) / 4 = 5
    merged = ties(deltas, weight=torch.tensor([3.0, 1.0]), density=1.0)
    assert torch.equal(merged, torch.tensor([1.0, 5.0]))


def test_the_mean_of_what_agrees_has_the_elected_sign_whatever_the_weights():
    # one task taken away: its vote is -3, and the mean -1·3 / 1
    assert ties(torch.tensor([[3.0]]), weight=-1.0, density=1.0).tolist() == [-3.0]
    deltas = torch.tensor([[2.0, 1.0, -4.0], [-4.0, 3.0, 2.0]])
    # weights 1 and -½: votes 2+2, 1-1.5 and -4-1; means 4/1.5, -1.5/½ and -5/1.5
    merged = ties(deltas, weight=[1.0, -0.5], density=1.0)
    torch.testing.assert_close(merged, torch.tensor([8 / 3, -3.0, -10 / 3]))
    # nearly opposite weights stay a mean: (2 + 0.99·4) / 1.99, where Σw is 0.01
    merged = ties(deltas[:, :1], weight=[1.0, -0.99], density=1.0)
    torch.testing.assert_close(merged, torch.tensor([5.96 / 1.99]))
    # of all: what agrees, by 1.5 in every place
    merged = ties(deltas, weight=[1.0, -0.5], density=1.0, combine="mean_of_all")
    torch.testing.assert_close(merged, torch.tensor([4 / 1.5, -1.0, -5 / 1.5]))
    # mergekit's: 4/½, -1.5/-½ and -5/½
    merged = ties(deltas, weight=[1.0, -0.5], density=1.0, combine="signed_mean")
    torch.testing.assert_close(merged, torch.tensor([8.0, 3.0, -10.0]))


@pytest.mark.parametrize("name", ["ties", "dare_ties", "della", "breadcrumbs_ties"])
def test_the_whole_family_keeps_the_elected_sign(name):
    deltas = torch.randn(3, 20, 30, generator=torch.Generator().manual_seed(1))
    weight, merge = [1.0, -0.99, -0.4], get_method(name)
    mean, total = (
        merge(deltas, weight=weight, density=0.6, combine=how) for how in ("mean", "sum")
    )
    assert torch.equal(mean.sign(), total.sign())
    assert bool((mean.abs() <= total.abs() / 0.4 * (1 + 1e-6)).all())  # by Σ|w| of one at least


def test_equal_magnitudes_at_the_threshold_all_stay():
    deltas = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    assert torch.equal(ties(deltas, density=0.25), deltas[0])


def reference(deltas: torch.Tensor, density: float) -> torch.Tensor:
    """README recipe of ties-merging, topk20 / mass / dis-mean, in its own steps."""
    d = deltas.shape[1]
    k = int(d * density)
    if d - k > 0:
        kth = deltas.abs().kthvalue(d - k, dim=1, keepdim=True).values
        deltas = deltas * (deltas.abs() >= kth)
    sign = torch.sign(deltas.sum(dim=0))
    majority = torch.sign(sign.sum())
    sign[sign == 0] = majority
    rows = torch.where(sign.unsqueeze(0) > 0, deltas > 0, deltas < 0)
    selected = deltas * rows
    return selected.sum(dim=0) / (selected != 0).sum(dim=0).float().clamp(min=1)


@given(
    st.integers(1, 5),
    st.integers(1, 200),
    st.floats(0.01, 1.0),
    st.integers(0, 10**6),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_authors_algorithm(models, size, density, seed, coarse):
    torch.manual_seed(seed)
    deltas = torch.randn(models, size)
    if coarse:  # many equal magnitudes and cancelling votes, as between bfloat16 checkpoints
        deltas = (deltas * 2).round() / 2
    torch.testing.assert_close(
        ties(deltas, density=density), reference(deltas, density), rtol=1e-6, atol=1e-7
    )


def test_blocks_with_the_whole_vectors_statistics_make_the_whole():
    torch.manual_seed(0)
    deltas = (torch.randn(3, 1000) * 2).round()
    thresholds = magnitude_thresholds(deltas, [trim_rank(1000, 0.4, "threshold")] * 3)
    count = MajoritySign()
    blocks = deltas.split(130, dim=1)
    given = {"weight": 1.0, "vote": "weighted", "zero": "majority", "thresholds": thresholds}
    seen = [count.look(block, **given) for block in blocks]
    assert any(depends for _, depends in seen)
    majority = count.settle(sum(balance for balance, _ in seen))
    parts = [ties(block, density=0.4, thresholds=thresholds, **majority) for block in blocks]
    assert torch.equal(torch.cat(parts), ties(deltas, density=0.4))


def test_readings_of_other_projects_worked_out_by_hand():
    deltas = torch.tensor([[3.0, -1.0, 2.0, 1.0], [-3.0, -2.0, 2.0, 1.0], [1.0, 4.0, -2.0, -2.0]])
    # sums 1, 1, 2, 0; counts of signs 1, -1, 1, 1
    assert ties(deltas, density=1.0).tolist() == [2.0, 4.0, 2.0, 1.0]  # majority +
    assert ties(deltas, density=1.0, combine="sum").tolist() == [4.0, 4.0, 4.0, 2.0]
    assert ties(deltas, density=1.0, zero="drop").tolist() == [2.0, 4.0, 2.0, 0.0]
    assert ties(deltas, density=1.0, vote="count").tolist() == [2.0, -1.5, 2.0, 1.0]
    weight = [2.0, 1.0, 1.0]
    # weighted sums 4, 0, 4, 1
    merged = ties(deltas, weight=weight, density=1.0, zero="positive")
    assert torch.equal(merged, torch.tensor([7 / 3, 4.0, 2.0, 1.0]))
    merged = ties(deltas, weight=weight, density=1.0, vote="sum", combine="sum_by_count")
    assert merged.tolist() == [3.5, 4.0, 3.0, 1.5]
    # two of four stay, of equal ones the first: rows [3, ., 2, .], [-3, -2, ., .], [., 4, -2, .]
    kept = ties(deltas, density=0.5, kept="count", combine="sum", zero="positive")
    assert kept.tolist() == [3.0, 4.0, 2.0 - 2.0 + 2.0, 0.0]


def test_ablations_of_the_paper_worked_out_by_hand():
    deltas = torch.tensor(
        [
            [5.0, -1.0, 2.0, -4.0, 3.0],  # 3rd smallest 3: keeps 5, -4, 3
            [-1.0, 6.0, 4.0, -5.0, 0.5],  # 3rd smallest 4: keeps 6, 4, -5
            [2.0, -3.0, 1.0, 7.0, -8.0],  # 3rd smallest 3: keeps -3, 7, -8
        ]
    )
    # No elect: what is kept has the means 5, (6-3)/2, 4, (-4-5+7)/3, (3-8)/2.
    merged = ties(deltas, density=0.4, vote="none")
    torch.testing.assert_close(merged, torch.tensor([5.0, 1.5, 4.0, -2 / 3, -2.5]))
    # No disjoint mean: sums of what agrees, 5, 6, 4, -9, -8, by all three models.
    merged = ties(deltas, density=0.4, combine="mean_of_all")
    torch.testing.assert_close(merged, torch.tensor([5 / 3, 2.0, 4 / 3, -3.0, -8 / 3]))
    # Neither, and no trim: the average.
    merged = ties(deltas, density=1.0, vote="none", combine="mean_of_all")
    torch.testing.assert_close(merged, deltas.mean(dim=0))
    # Weights 1, 1, 2 of all are 4: (-3·2 + 6)/4 in the second place.
    merged = ties(deltas, weight=[1.0, 1.0, 2.0], density=0.4, vote="none", combine="mean_of_all")
    torch.testing.assert_close(merged, torch.tensor([1.25, 0.0, 1.0, 1.25, -3.25]))


def test_given_signs_replace_the_election():
    deltas = torch.tensor([[5.0, -1.0, 2.0, -4.0], [-1.0, 6.0, 4.0, -5.0], [2.0, -3.0, 1.0, 7.0]])
    signs = torch.tensor([-1, -1, 1, 0], dtype=torch.int8)
    # What has these signs: -1; -1 and -3; 2, 4 and 1; nothing.
    expected = torch.tensor([-1.0, -2.0, 7 / 3, 0.0])
    for vote in ("weighted", "sum", "count", "none"):
        merged = ties(deltas, density=1.0, signs=signs, vote=vote)
        torch.testing.assert_close(merged, expected)
    # Weighted vectors [5, -1, 2, -4] and [1, -6, -4, 5], signs +, +, -, none.
    merged = ties(deltas[:2], weight=[1.0, -1.0], density=1.0, signs=-signs, combine="sum")
    assert merged.tolist() == [6.0, 0.0, -4.0, 0.0]


def test_elected_signs_given_again_change_nothing():
    deltas = torch.randn(4, 300, generator=torch.Generator().manual_seed(3))
    merged = ties(deltas, density=0.3)
    assert torch.equal(ties(deltas, density=0.3, signs=merged.sign().to(torch.int8)), merged)


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_inputs_are_untouched(density):
    deltas = torch.randn(3, 50)
    before = deltas.clone()
    ties(deltas, density=density)
    assert torch.equal(deltas, before)
