import numpy as np
import pytest
import torch

from alliage.geometry.interference.steps import (
    AGREEMENTS,
    STEPS,
    Magnitudes,
    agreement_bins,
    merge_steps,
)
from alliage.merging.methods.ties import ties


def merged(deltas, kept):
    return dict(zip(STEPS, merge_steps(deltas, kept).tolist(), strict=True))


def test_two_models_of_three_parameters_by_hand():
    # a = (3, −2, 1) keeps its first two, b = (2, 1, −4) its first and last.
    deltas = np.array([[3, -2, 1], [2, 1, -4]], np.float32)
    kept = np.array([[True, True, False], [True, False, True]])
    found = merged(deltas, kept)
    assert found == {
        "mean": [2.5, -0.5, -1.5],
        "trimmed": [2.5, -1.0, -2.0],
        "trimmed_disjoint": [2.5, -2.0, -4.0],
        "elected_disjoint": [2.5, -2.0, -4.0],  # of −2 and 1 the sum is negative: −2 alone
        "trimmed_elected": [2.5, -1.0, -2.0],
        "ties": [2.5, -2.0, -4.0],
    }


def test_what_trimming_keeps_may_still_be_outvoted():
    # 4 and −1 and −1 and −1: the sum is positive, one of four has its sign.
    deltas = np.array([[4], [-1], [-1], [-1]], np.float32)
    found = merged(deltas, np.ones((4, 1), bool))
    assert found["mean"] == found["trimmed"] == found["trimmed_disjoint"] == [0.25]
    assert found["trimmed_elected"] == [1.0]
    assert found["elected_disjoint"] == found["ties"] == [4.0]


def test_nothing_kept_is_nothing_merged():
    deltas = np.array([[0.5], [-0.25]], np.float32)
    found = merged(deltas, np.zeros((2, 1), bool))
    assert found["mean"] == [0.125]
    assert found["elected_disjoint"] == [0.5]
    assert all(found[step] == [0] for step in STEPS if step.startswith("trimmed") or step == "ties")


@pytest.mark.parametrize("models", [2, 3, 8])
def test_the_last_step_is_the_merge_method(models):
    deltas = torch.randn(models, 2000, generator=torch.Generator().manual_seed(models))
    deltas[0, ::50] = 0
    limit = [0.8] * models
    expected = ties(deltas, thresholds=limit, zero="positive", majority=1.0)
    plain = ties(deltas, thresholds=[0.0] * models, vote="none", combine="mean_of_all", density=1.0)
    elected = ties(deltas, thresholds=[0.0] * models, zero="positive", majority=1.0)
    found = dict(
        zip(STEPS, merge_steps(deltas.numpy(), (deltas.abs() >= 0.8).numpy()), strict=True)
    )
    for step, values in (("ties", expected), ("mean", plain), ("elected_disjoint", elected)):
        assert found[step] == pytest.approx(values.numpy(), rel=1e-5, abs=1e-7)


def test_agreement_is_the_majority_among_those_that_move():
    # + against −, by columns: 1:1, 3:2, 7:3, 4:1, 9:1, 5:0, 0:0, 1:0.
    counts = [(1, 1), (3, 2), (7, 3), (4, 1), (9, 1), (5, 0), (0, 0), (1, 0)]
    columns = [[1.0] * up + [-1.0] * down + [0.0] * (10 - up - down) for up, down in counts]
    bins = agreement_bins(np.array(columns, np.float32).T)
    assert [AGREEMENTS[place] for place in bins] == [
        "0.5-0.6", "0.6-0.7", "0.7-0.8", "0.8-0.9", "0.9-1.0", "0.9-1.0", "unchanged", "0.9-1.0",
    ]  # fmt: skip
    assert np.array_equal(bins, agreement_bins(-np.array(columns, np.float32).T))


def test_magnitudes_are_sorted_by_influence_and_agreement():
    random = np.random.default_rng(0)
    deltas = random.standard_normal((5, 700)).astype(np.float32)
    deltas[:, 600:] = 0
    kept = np.abs(deltas) > 1.2
    whole = Magnitudes.of(deltas, kept)
    parts = Magnitudes.none(5)
    for start in range(0, 700, 99):
        block = slice(start, start + 99)
        parts = parts.plus(Magnitudes.of(deltas[:, block], kept[:, block]))
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    sizes = np.abs(merge_steps(deltas, kept)).astype(float)
    keeping, bins = kept.sum(axis=0), agreement_bins(deltas)
    for c in range(6):
        for b in range(6):
            here = (keeping == c) & (bins == b)
            assert whole.counts[c, b] == here.sum()
            assert whole.totals[:, c, b] == pytest.approx(sizes[:, here].sum(axis=1))
            assert whole.squares[:, c, b] == pytest.approx((sizes[:, here] ** 2).sum(axis=1))
    assert whole.counts[0, -1] == 100
