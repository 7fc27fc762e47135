"""Oracles: scikit-learn's PCA, and distances between points that are known."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import PCA

from alliage.geometry import classical_mds, principal_components
from alliage.geometry.mapping.clustering import average_linkage

POINTS = np.random.default_rng(0).normal(size=(7, 2)) * (3.0, 1.0)
DISTANCES = squareform(pdist(POINTS))


def test_components_agree_with_scikit_learn():
    oracle = PCA(2).fit(DISTANCES)
    found = principal_components(DISTANCES)
    expected = oracle.transform(DISTANCES)
    signs = np.sign((found.coordinates * expected).sum(axis=0))
    np.testing.assert_allclose(found.coordinates * signs, expected, atol=1e-12)
    np.testing.assert_allclose(found.explained, oracle.explained_variance_ratio_, rtol=1e-12)


def test_scaling_recovers_points_in_the_plane():
    found = classical_mds(DISTANCES)
    np.testing.assert_allclose(squareform(pdist(found.coordinates)), DISTANCES, atol=1e-12)
    assert found.explained.sum() == pytest.approx(1.0, abs=1e-12)
    assert found.explained[0] > found.explained[1]


@pytest.mark.parametrize("method", [classical_mds, principal_components])
def test_signs_are_fixed(method):
    coordinates = method(DISTANCES).coordinates
    for axis in coordinates.T:
        assert axis[np.abs(axis).argmax()] > 0


@pytest.mark.parametrize("method", [classical_mds, principal_components])
def test_few_or_equal_models(method):
    pair = method([[0.0, 2.0], [2.0, 0.0]])
    assert pair.coordinates.shape == (2, 2)
    np.testing.assert_allclose(pair.coordinates[:, 1], 0.0)
    np.testing.assert_allclose(pair.explained, [1.0, 0.0])
    same = method(np.zeros((3, 3)))
    np.testing.assert_array_equal(same.coordinates, 0.0)
    np.testing.assert_array_equal(same.explained, 0.0)


def test_two_models_lie_as_far_apart_as_they_are():
    found = classical_mds([[0.0, 2.0], [2.0, 0.0]]).coordinates
    assert np.abs(found[0, 0] - found[1, 0]) == pytest.approx(2.0, abs=1e-12)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        principal_components(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        classical_mds([[0.0, np.nan], [np.nan, 0.0]])


@pytest.mark.parametrize("method", [classical_mds, principal_components, average_linkage])
@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([[0.0, 1.0], [2.0, 0.0]], r"symmetric distances, found 1 at \[0, 1\] and 2 at \[1, 0\]"),
        ([[0.0, -0.5], [-0.5, 0.0]], r"0 or more, found -0.5 at \[0, 1\]$"),
        ([[0.0, 1.0], [1.0, 0.3]], r"0 on the diagonal, found 0.3 at \[1, 1\]$"),
    ],
)
def test_what_is_no_matrix_of_distances_is_refused(method, matrix, said):
    with pytest.raises(ValueError, match=said):
        method(matrix)


def test_rounding_is_no_flaw():
    exact = classical_mds(DISTANCES)
    noise = 1e-11 * np.random.default_rng(1).normal(size=DISTANCES.shape)
    np.testing.assert_allclose(
        classical_mds(DISTANCES + noise).coordinates, exact.coordinates, atol=1e-8
    )
