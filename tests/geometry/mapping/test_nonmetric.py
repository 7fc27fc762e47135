"""Oracles: points that are known, scikit-learn's SMACOF and isotonic regression, scipy's ranks."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression
from sklearn.manifold import MDS

from alliage.geometry.mapping.maps import classical_mds, principal_components
from alliage.geometry.mapping.nonmetric import (
    is_collapsed,
    nonmetric_mds,
    rank_agreement,
    stress,
)

RANDOM = np.random.default_rng(3)
POINTS = RANDOM.normal(size=(12, 2)) * (3.0, 1.0)
PLANE = squareform(pdist(POINTS))
SPACE = squareform(pdist(RANDOM.normal(size=(10, 6))))


def test_only_the_order_counts():
    found = nonmetric_mds(np.expm1(PLANE))
    assert stress(np.expm1(PLANE), found.coordinates) < 1e-3
    assert rank_agreement(PLANE, found.coordinates) > 0.999
    # The order of 66 distances leaves little room: the points themselves, but for scale, come out.
    apart = pdist(found.coordinates)
    given = pdist(POINTS)
    assert np.corrcoef(apart, given)[0, 1] > 0.99


@pytest.mark.parametrize("distances", [SPACE, PLANE**3, squareform(RANDOM.random(45) + 1)])
def test_no_worse_than_scikit_learn(distances):
    oracle = MDS(
        2, metric_mds=False, metric="precomputed", init="random", n_init=4, max_iter=300,
        eps=1e-9, random_state=0, normalized_stress=True,
    ).fit(distances)  # fmt: skip
    found = stress(distances, nonmetric_mds(distances).coordinates)
    assert found <= stress(distances, oracle.embedding_) + 1e-3


def test_no_worse_than_its_starts():
    found = stress(SPACE, nonmetric_mds(SPACE).coordinates)
    for method in (classical_mds, principal_components):
        assert found <= stress(SPACE, method(SPACE).coordinates)


def test_stress_by_hand():
    # Points on a line at 0, 1 and 3: distances ab 1, ac 3 and bc 2. Given are ab 1, ac 2 and bc 3,
    # so that 3 and 2 are in the wrong order: both become 2.5 and leave 2 · 0.5² = 0.5.
    given = squareform([1.0, 2.0, 3.0])
    points = [[0.0], [1.0], [3.0]]
    assert stress(given, points) == pytest.approx(math.sqrt(0.5 / (1 + 9 + 4)), rel=1e-14)
    # Ranks (1, 2, 3) and (1, 3, 2): 1 − 6·2/(3·8) = 0.5.
    assert rank_agreement(given, points) == pytest.approx(0.5, rel=1e-14)


def test_equal_distances_may_be_in_any_order():
    given = squareform([1.0, 2.0, 2.0])
    assert stress(given, [[0.0], [1.0], [3.0]]) == 0.0


def test_stress_and_ranks_against_other_code():
    points = RANDOM.normal(size=(10, 2))
    given, apart = squareform(SPACE), pdist(points)
    fitted = IsotonicRegression().fit_transform(given, apart)
    expected = math.sqrt(((apart - fitted) ** 2).sum() / (apart**2).sum())
    assert stress(SPACE, points) == pytest.approx(expected, rel=1e-12)
    assert rank_agreement(SPACE, points) == pytest.approx(spearmanr(given, apart)[0], rel=1e-12)


def test_scale_axes_and_signs_are_fixed():
    found = nonmetric_mds(SPACE)
    apart, given = pdist(found.coordinates), squareform(SPACE)
    # Of all scales the one that fits best in least squares.
    assert given @ apart == pytest.approx(apart @ apart, rel=1e-10)
    np.testing.assert_allclose(found.coordinates.mean(axis=0), 0.0, atol=1e-12)
    covariance = found.coordinates.T @ found.coordinates
    assert abs(covariance[0, 1]) < 1e-10 * covariance[0, 0]
    assert covariance[0, 0] >= covariance[1, 1]
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in found.coordinates.T)
    assert found.explained.sum() == pytest.approx(1.0)


def test_same_distances_same_map():
    first, second = nonmetric_mds(SPACE), nonmetric_mds(SPACE.copy())
    np.testing.assert_array_equal(first.coordinates, second.coordinates)


def test_groups_fall_into_points_and_that_is_said():
    same = np.arange(10) % 2
    within = same[:, None] == same
    groups = squareform(np.random.default_rng(0).random(45)) + np.where(within, 1.0, 9.0)
    np.fill_diagonal(groups, 0.0)
    assert is_collapsed(nonmetric_mds(groups).coordinates)
    assert not is_collapsed(nonmetric_mds(SPACE).coordinates)
    assert not is_collapsed([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_models(n):
    given = np.ones((n, n)) - np.eye(n)
    found = nonmetric_mds(given)
    assert found.coordinates.shape == (n, 2)
    np.testing.assert_allclose(squareform(pdist(found.coordinates)), given, atol=1e-9)
    # One distance, or distances that are all equal, have no order to keep.
    assert math.isnan(rank_agreement(given, found.coordinates))


def test_equal_models_lie_at_one_place():
    np.testing.assert_array_equal(nonmetric_mds(np.zeros((4, 4))).coordinates, 0.0)
    assert math.isnan(stress(np.zeros((4, 4)), np.zeros((4, 2))))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        nonmetric_mds(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        stress([[0.0, np.nan], [np.nan, 0.0]], np.zeros((2, 2)))
