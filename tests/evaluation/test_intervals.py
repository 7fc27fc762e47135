"""Bootstrap intervals and paired tests, against scipy and exact probabilities."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats

from alliage.evaluation import intervals as module
from alliage.evaluation.intervals import (
    differences,
    exact_interval,
    intervals,
    mcnemar,
    whole_differences,
    whole_intervals,
)
from alliage.evaluation.tally import classification_tally, ratio_tally, regression_tally

RANDOM = np.random.default_rng(7)
RIGHT = (RANDOM.random(60) < 0.8).astype(float)
SKEWED = RANDOM.exponential(size=60)


def mean_tally(values):
    return ratio_tally({"mean": (values, np.ones(len(values)))})


@pytest.mark.parametrize("values", [RIGHT, SKEWED])
def test_bca_is_scipys_on_the_same_resamples(values):
    with_scipy = stats.bootstrap((values,), np.mean, n_resamples=999, method="BCa", rng=0)
    tally = mean_tally(values)
    found = module._bca(
        with_scipy.bootstrap_distribution,
        tally.values()["mean"],
        module._jackknife(tally)["mean"],
        0.95,
    )
    assert found.method == "bca"
    assert found[:2] == pytest.approx(tuple(with_scipy.confidence_interval), abs=1e-12)


def test_bca_of_a_correlation_is_scipys_on_the_same_resamples():
    x = RANDOM.normal(size=40)
    y = x + RANDOM.normal(size=40)
    with_scipy = stats.bootstrap(
        (x, y), lambda a, b: stats.pearsonr(a, b)[0], paired=True, vectorized=False,
        n_resamples=499, method="BCa", rng=1,
    )  # fmt: skip
    tally = regression_tally(x, y)
    found = module._bca(
        with_scipy.bootstrap_distribution,
        tally.values()["pearson"],
        module._jackknife(tally)["pearson"],
        0.95,
    )
    assert found[:2] == pytest.approx(tuple(with_scipy.confidence_interval), abs=1e-9)


def test_resamples_draw_examples_with_their_binomial_spread():
    drawn = module._resampled(mean_tally(RIGHT), 4000, seed=3)
    assert (drawn[:, 1] == len(RIGHT)).all()  # each resample has as many examples
    share = RIGHT.mean()
    expected = np.sqrt(len(RIGHT) * share * (1 - share))
    assert drawn[:, 0].mean() == pytest.approx(RIGHT.sum(), abs=5 * expected / np.sqrt(4000))
    assert drawn[:, 0].std() == pytest.approx(expected, rel=0.05)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        found = intervals(mean_tally((random.random(80) < 0.7).astype(float)), seed=seed)["mean"]
        covered += found.low <= 0.7 <= found.high
    # 95 % of 200 is 190; below 180 the binomial probability is under 0.002 (a bootstrap's own
    # undercoverage at 80 examples takes about two points).
    assert covered >= 180


def test_sentences_are_drawn_whole():
    # Ten sentences of ten equal tokens: the interval is that of ten decisions, not of a hundred.
    right = np.repeat([1, 0, 1, 1, 0, 1, 1, 0, 1, 1], 10)
    truth = np.ones(100, int)
    owners = np.repeat(np.arange(10), 10)
    grouped = intervals(classification_tally(truth, right, 2, examples=owners))["accuracy"]
    each = intervals(classification_tally(truth, right, 2))["accuracy"]
    assert grouped.high - grouped.low > 2.5 * (each.high - each.low)


def test_what_never_varies_has_no_interval():
    assert intervals(mean_tally(np.ones(5))) == {}


def test_the_exact_interval_is_that_of_clopper_and_pearson():
    right = np.arange(20) < 17
    low, high, _ = exact_interval(right)
    # Their definition: 17 or more, or 17 or fewer, of 20 are seen with probability 2.5 %.
    assert stats.binom.sf(16, 20, low) == pytest.approx(0.025)
    assert stats.binom.cdf(17, 20, high) == pytest.approx(0.025)


def test_equal_seeds_are_equal_and_chunks_do_not_matter(monkeypatch):
    once = intervals(mean_tally(SKEWED), seed=5)
    monkeypatch.setattr(module, "_CELLS", 1000)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert intervals(mean_tally(SKEWED), seed=5) == once
    assert intervals(mean_tally(SKEWED), seed=6) != once


def test_a_percentile_interval_is_scipys():
    rank = stats.rankdata
    x = RANDOM.normal(size=30)
    y = x + RANDOM.normal(size=30)
    found = whole_intervals(
        30, {"s": lambda at: np.corrcoef(rank(x[at]), rank(y[at]))[0, 1]}, resamples=300, seed=2
    )["s"]
    with_scipy = stats.bootstrap(
        (x, y), lambda a, b: stats.spearmanr(a, b)[0], paired=True, vectorized=False,
        n_resamples=300, method="percentile", rng=np.random.default_rng(2),
    )  # fmt: skip
    assert found[:2] == pytest.approx(tuple(with_scipy.confidence_interval), abs=1e-12)


def test_mcnemar_is_the_binomial_of_the_pairs_that_differ():
    right = np.array([1] * 9 + [0] * 3 + [1] * 20)
    reference = np.array([0] * 9 + [1] * 3 + [1] * 20)
    # Two-sided: 2 · P(at most 3 heads of 12).
    expected = 2 * sum(comb(12, heads) for heads in range(4)) / 2**12
    assert mcnemar(right, reference) == pytest.approx(expected)
    assert mcnemar(right, right) == 1


def test_randomisation_is_the_exact_probability_in_the_limit():
    """The answers of two models swap at random: of six that differ, five for the first."""
    first = np.array([1, 1, 1, 1, 1, 0, 1, 1, 0, 0])
    second = np.array([0, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    found = differences(mean_tally(first), mean_tally(second), resamples=20_000)["mean"]
    assert found.value == pytest.approx(0.4)
    # |heads − tails| of six at least 4: 0, 1, 5 or 6 heads.
    exact = 2 * (comb(6, 0) + comb(6, 1)) / 2**6
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))
    assert found.test == "randomisation"


def test_paired_differences_know_the_pairs():
    # The second is right wherever the first is, and on five more: never worse in any resample.
    first = np.array([0] * 20 + [1] * 30)
    second = np.array([0] * 15 + [1] * 35)
    found = differences(mean_tally(second), mean_tally(first))["mean"]
    assert found.value == pytest.approx(0.1)
    assert 0 < found.low < 0.1 < found.high < 0.22
    # By itself each is uncertain by more than that.
    alone = intervals(mean_tally(first))["mean"]
    assert alone.high - alone.low > found.high - found.low


def test_a_model_does_not_differ_from_itself():
    tally = mean_tally(RIGHT)
    metric = {"sum": lambda at: float(RIGHT[at].sum())}
    for found in (differences(tally, tally)["mean"], whole_differences(60, metric, metric)["sum"]):
        assert (found.value, found.p) == (0, 1)
        assert np.isnan([found.low, found.high]).all()


def test_other_examples_cannot_be_paired():
    with pytest.raises(ValueError, match="3 examples cannot be paired with 2"):
        differences(mean_tally([1, 0, 1]), mean_tally([1, 0]))


def test_whole_metrics_are_paired_too():
    better = SKEWED + 1
    found = whole_differences(
        60, {"m": lambda at: float(better[at].mean())}, {"m": lambda at: float(SKEWED[at].mean())}
    )["m"]
    assert found[:3] == pytest.approx((1, 1, 1))
    assert found.p == pytest.approx(2 / 2001)
