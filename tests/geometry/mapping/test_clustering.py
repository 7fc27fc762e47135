"""A known tree by hand; scipy and an exhaustive search as oracles."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from alliage.geometry.mapping.clustering import average_linkage, leaf_order, medoids

# a and c are nearest (1), then b joins them at (3 + 5) / 2 = 4, then d at (6 + 7 + 8) / 3 = 7.
#              ab   ac   ad   bc   bd   cd
BY_HAND = squareform([3.0, 1.0, 6.0, 5.0, 7.0, 8.0])


def test_a_known_tree():
    tree = average_linkage(BY_HAND)
    np.testing.assert_allclose(tree[:, 2], [1.0, 4.0, 7.0], rtol=1e-15)
    np.testing.assert_array_equal(tree[:, 3], [2, 3, 4])
    assert sorted(tree[0, :2]) == [0, 2]


def test_neighbours_are_as_near_as_the_tree_allows():
    order = leaf_order(average_linkage(BY_HAND))
    # The tree (d, (b, (a, c))) allows these eight orders; b a c d would part what is joined.
    allowed = {
        tuple(d + inner if left else inner + d)
        for d in ([3],)
        for b, pair in itertools.product((0, 1), ([0, 2], [2, 0]))
        for inner in ([1, *pair] if b else [*pair, 1],)
        for left in (0, 1)
    }

    def length(one):
        return sum(BY_HAND[i, j] for i, j in itertools.pairwise(one))

    assert tuple(order) in allowed
    assert length(order) == min(map(length, allowed))


def test_medoids_of_two_groups():
    points = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.5])
    distances = np.abs(points[:, None] - points)
    assert medoids(distances, 2) == [1, 4]
    assert medoids(distances, 6) == list(range(6))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\[3, 2\]"):
        average_linkage(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="NaN"):
        average_linkage([[0.0, np.nan], [np.nan, 0.0]])
