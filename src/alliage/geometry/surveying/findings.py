"""What stands out in a survey, in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from alliage.geometry.surveying.metrics import METRICS, Metric

_FAR = 3.0  # standard deviations from the mean of chance

# Small values first; which side of chance says that something is shared.
_WORDS = {
    "distance": ("nearest", "farthest", "closer than chance"),
    "share": ("lowest", "highest", "above chance"),
    "amount": ("lowest", "highest", "above chance"),
}


def finding(name: str, values: xr.DataArray, null: xr.Dataset) -> str:
    """One line: the pairs with the smallest and the largest mean over modules, and chance.

    Where spaces differ in dimension, means of distances are in shares of what chance gives them.
    """
    metric = METRICS.get(name, Metric(name, "", "", "sums", lambda found: found))
    names = values["task"].values.tolist()
    among = itertools.permutations if metric.directed else itertools.combinations
    pairs = list(among(range(len(names)), 2))
    means = values.mean("module").to_numpy()
    relative = _unlike(metric, null, pairs)
    if relative:
        with np.errstate(invalid="ignore"):  # 0/0 on the diagonal
            means = means / null[name].mean("module").to_numpy()
    defined = sorted((float(means[p]), p) for p in pairs if not math.isnan(means[p]))
    if not defined:
        return f"{name}: not defined for any pair."
    (low, first), (high, last) = defined[0], defined[-1]
    small, large, beyond = _WORDS[metric.sense]
    alone = len(defined) == 1

    def told(pair: tuple[int, ...]) -> str:
        return f" {metric.link} ".join(names[index] for index in pair)

    told_of = f"{name}, in shares of each pair's chance" if relative else name
    text = f"{told_of}: {'' if alone else f'{small} '}{told(first)} {low:.4g}"
    if not alone:
        text += f", {large} {told(last)} {high:.4g}"
    if name not in null:
        return text + "."
    by_chance = null[name].mean("module").to_numpy()
    scale = by_chance if relative else np.ones_like(by_chance)
    if not relative:
        mean = np.mean([by_chance[p] for _, p in defined])
        text += f"; {metric.by_chance or 'chance'} {mean:.4g}"
    if f"{name}_sd" not in null:
        return text + "."
    # Random modules are independent: variances of their mean add up.
    deviations = null[f"{name}_sd"]
    count = deviations.notnull().sum("module")
    deviation = ((deviations**2).sum("module") ** 0.5 / count).to_numpy()
    sign = 1 if metric.sense == "distance" else -1
    beyond_chance = sum(
        sign * value * scale[p] < sign * by_chance[p] - _FAR * deviation[p] for value, p in defined
    )
    verdict = (
        f"{beyond_chance} of {len(defined)} pairs"
        if not alone
        else "it is" if beyond_chance else "not"
    )  # fmt: skip
    return f"{text}: {verdict} {beyond}."


def _unlike(metric: Metric, null: xr.Dataset, pairs: Sequence[tuple[int, ...]]) -> bool:
    """Whether distances of pairs are of unlike numbers of angles, as their chance tells."""
    if metric.needs != "angles" or metric.name == "ye_lim" or metric.name not in null:
        return False
    chance = np.array([null[metric.name].to_numpy()[pair] for pair in pairs])
    known = chance[:, np.isfinite(chance).all(axis=0)]
    return bool((np.ptp(known, axis=0) > 0).any())
