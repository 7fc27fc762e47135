"""Models that may be merged with each other, by what every pair of them is expected to lose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def groups(
    names: Sequence[str], losses: Mapping[tuple[str, str], float], threshold: float
) -> list[tuple[str, ...]]:
    """Groups in which no pair is expected to lose more than a threshold.

    Complete linkage on the larger loss of each pair: two groups become one where the worst pair
    among them allows it, the best such two first.

    Args:
        names: of the models.
        losses: (task, merged with) -> points; a pair without both never shares a group.
        threshold: points.

    Returns:
        the groups, each in the order of the names, the one with the first name first.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(names) < 2:
        return [tuple(names)]
    worst = np.zeros((len(names), len(names)))
    for i, first in enumerate(names):
        for j, second in enumerate(names[:i]):
            pair = [losses.get(key, math.nan) for key in ((first, second), (second, first))]
            worst[i, j] = worst[j, i] = math.inf if any(map(math.isnan, pair)) else max(pair)
    # A loss below zero is a gain; a distance must not be. Infinity would spoil the tree.
    finite = np.clip(np.nan_to_num(worst, posinf=1e6), 0, 1e6)
    tree = linkage(squareform(finite, checks=False), "complete")
    labels = fcluster(tree, max(threshold, 0.0), "distance")
    found: dict[int, list[str]] = {}
    for name, label in zip(names, labels.tolist(), strict=True):
        found.setdefault(label, []).append(name)
    return [tuple(group) for group in found.values()]
