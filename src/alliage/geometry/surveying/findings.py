"""What stands out in a survey, in words."""

from __future__ import annotations

import itertools
import math

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
    """One line: the pairs with the smallest and the largest mean over modules, and chance."""
    metric = METRICS.get(name, Metric(name, "", "", "sums", lambda found: found))
    names = values["task"].values.tolist()
    among = itertools.permutations if metric.directed else itertools.combinations
    pairs = list(among(range(len(names)), 2))
    means = values.mean("module").to_numpy()
    defined = sorted((float(means[p]), p) for p in pairs if not math.isnan(means[p]))
    if not defined:
        return f"{name}: not defined for any pair."
    (low, first), (high, last) = defined[0], defined[-1]
    small, large, beyond = _WORDS[metric.sense]
    alone = len(defined) == 1

    def told(pair: tuple[int, ...]) -> str:
        return f" {metric.link} ".join(names[index] for index in pair)

    text = f"{name}: {'' if alone else f'{small} '}{told(first)} {low:.4g}"
    if not alone:
        text += f", {large} {told(last)} {high:.4g}"
    if name not in null:
        return text + "."
    by_chance = null[name].mean("module").to_numpy()
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
        sign * value < sign * by_chance[p] - _FAR * deviation[p] for value, p in defined
    )
    verdict = (
        f"{beyond_chance} of {len(defined)} pairs"
        if not alone
        else "it is" if beyond_chance else "not"
    )  # fmt: skip
    return f"{text}: {verdict} {beyond}."
