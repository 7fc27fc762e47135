"""Measures of what a merge changes, against values worked out by hand and naive loops."""

import math

import numpy as np
import pytest

from alliage.forecasting import measures

# Probabilities (0.8, 0.2) and (0.6, 0.4); the merge says (0.5, 0.5)… and (0.25, 0.75).
PARENT = np.log([[0.8, 0.2], [0.6, 0.4]])
MERGED = np.log([[0.5, 0.5], [0.25, 0.75]])


def test_by_hand() -> None:
    # The first answer stays (equal logits: the first label), the second turns.
    assert measures.changed_share(PARENT, MERGED) == 0.5
    # (0.6 − 0.4) of the second of two examples.
    assert measures.expected_loss(PARENT, MERGED) == pytest.approx(0.1)
    # Half of (0.3 + 0.3) and of (0.35 + 0.35), the mean of both.
    assert measures.total_variation(PARENT, MERGED) == pytest.approx(0.325)
    by_hand = (
        0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
        + 0.6 * math.log(0.6 / 0.25) + 0.4 * math.log(0.4 / 0.75)
    ) / 2  # fmt: skip
    assert measures.divergence(PARENT, MERGED) == pytest.approx(by_hand, rel=1e-12)


def test_divergence_of_the_same_answers_is_zero_and_knows_no_offset() -> None:
    assert measures.divergence(PARENT, PARENT + 3.0) == pytest.approx(0.0, abs=1e-12)
    assert measures.divergence(PARENT, MERGED - 7.0) == pytest.approx(
        measures.divergence(PARENT, MERGED)
    )


def test_disentanglement_adds_up_over_tasks() -> None:
    assert measures.disentanglement_error([MERGED, PARENT], [PARENT, PARENT]) == 0.5


def test_linear_cka_against_features_and_covariances() -> None:
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(20, 7)), random.normal(size=(20, 3))
    x, y = X - X.mean(0), Y - Y.mean(0)
    dense = np.square(y.T @ x).sum() / math.sqrt(
        np.square(x.T @ x).sum() * np.square(y.T @ y).sum()
    )
    assert measures.linear_cka(X, Y) == pytest.approx(dense, rel=1e-12)
    turn = np.linalg.qr(random.normal(size=(7, 7)))[0]
    assert measures.linear_cka(X, 3 * X @ turn + 1) == pytest.approx(1.0)
    assert math.isnan(measures.linear_cka(X, np.ones((20, 2))))


def test_gradient_distance_and_barrier() -> None:
    assert measures.gradient_distance(np.array([[3.0, 0.0]]), np.array([[0.0, 4.0]])) == 5.0
    # The line from 1 to 3 is 2 in the middle, where the path is at 2.5.
    assert measures.connectivity_barrier([1.0, 2.5, 3.0]) == 0.5
    assert measures.connectivity_barrier([1.0, 0.0, 1.0]) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: measures.changed_share(PARENT, MERGED[:1]),
        lambda: measures.divergence(PARENT[:0], MERGED[:0]),
        lambda: measures.linear_cka(np.ones((2, 2)), np.ones((3, 2))),
        lambda: measures.gradient_distance(np.ones(2), np.ones(3)),
        lambda: measures.connectivity_barrier([1.0]),
    ],
)
def test_what_does_not_belong_together_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"examples|expected|shapes|ends"):
        wrong()
