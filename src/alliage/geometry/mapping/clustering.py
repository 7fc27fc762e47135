"""Models in groups: average linkage, the order of its leaves, medoids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from alliage.geometry.mapping.maps import checked_distances


def average_linkage(distances: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Average linkage (UPGMA) with leaves in the order that puts near ones side by side.

    The order is the best of all that the tree allows (Bar-Joseph, Gifford and Jaakkola 2001): the
    sum of distances between neighbours is least.

    Args:
        distances: [n, n], symmetric, n from 2.

    Returns:
        scipy's linkage matrix [n − 1, 4]: the two nodes joined, the height, how many leaves.
    """
    condensed = squareform(checked_distances(distances), checks=False)
    return np.asarray(hierarchy.linkage(condensed, method="average", optimal_ordering=True))


def leaf_order(tree: npt.NDArray[np.float64]) -> list[int]:
    """The leaves of a linkage matrix from left to right."""
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]


def medoids(distances: npt.ArrayLike, limit: int) -> list[int]:
    """The models that stand for all: of each of `limit` groups the one nearest to the others.

    Args:
        distances: [n, n], symmetric.
        limit: at most so many.

    Returns:
        indices, ascending; all of them where there are no more than `limit`.
    """
    matrix = checked_distances(distances)
    if len(matrix) <= limit:
        return list(range(len(matrix)))
    tree = hierarchy.linkage(squareform(matrix, checks=False), method="average")
    cluster = hierarchy.fcluster(tree, limit, criterion="maxclust")
    found = []
    for label in np.unique(cluster):
        members = np.flatnonzero(cluster == label)
        inside = matrix[np.ix_(members, members)].sum(axis=1)
        found.append(int(members[int(np.argmin(inside))]))
    return sorted(found)
