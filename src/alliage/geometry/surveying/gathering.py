"""From what single weights contribute to the arrays of a survey."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor

from alliage.checkpoints.names import kind_of, layer_of
from alliage.geometry.spectra import effective_rank, spectral_entropy
from alliage.geometry.surveying.measuring import Measured, Spectra
from alliage.geometry.surveying.metrics import METRICS
from alliage.geometry.surveying.pairs import Counts, Sums

# name -> definition; in `Survey.spectra`, for each model and module.
QUANTITIES: Mapping[str, str] = {
    "rank": "how many singular values are above rounding, of all",
    "effective_rank": "e^H of all singular values as shares",
    "stable_rank": "‖ΔW‖² / S₁²",
    "entropy": "H / ln r of all r singular values as shares, from 0 to 1",
    "norm": "‖ΔW‖_F, in weights",
    "energy": "share of ‖ΔW‖² that the leading directions hold; 1 for all of them",
    "error": "near each leading singular value, by so many shares of the largest, is a true one",
}


class Contribution(NamedTuple):
    """What weights add to their module, layer or model; contributions add up.

    Attributes:
        sums: over elements.
        counts: of elements, if needed.
        totals: for each metric of matrices [5, n, n]: values, means and variances of what chance
            gives, how many are defined, and for how many of those chance is.
        models: for each model and quantity the total and how many there are [2, q, n], if needed.
        S: singular values of each model [n], of a single matrix.
        dimensions: of the models' spaces between which angles are, one tuple for each weight.
    """

    sums: Sums
    counts: Counts | None
    totals: Mapping[str, Tensor]
    models: Tensor | None
    S: list[Tensor] | None
    dimensions: frozenset[tuple[int, ...]]

    @classmethod
    def of(cls, measured: Measured, metrics: Sequence[str]) -> Contribution:
        """Of one weight."""
        n = len(measured.sums.inner)
        totals = {}
        for name in metrics:
            metric = METRICS[name]
            if metric.needs in ("sums", "counts"):
                continue
            if metric.needs not in measured.found:
                totals[name] = torch.zeros(5, n, n, dtype=torch.float64)
                continue
            found = measured.found[metric.needs]
            values = metric.measure(found)
            mean = variance = torch.full_like(values, math.nan)
            if metric.chance is not None:
                mean, variance = metric.chance(found).masked_fill(values.isnan(), math.nan)
            known = ~mean.isnan()
            totals[name] = torch.stack(
                [
                    values.nan_to_num(0.0, posinf=math.inf),
                    mean.nan_to_num(0.0, posinf=math.inf),
                    variance.masked_fill(~known, 0.0),  # NaN stays where only that is unknown
                    (~values.isnan()).double(),
                    known.double(),
                ]
            )
        models = _quantities(measured.spectra) if measured.spectra is not None else None
        S = measured.spectra.S if measured.spectra is not None else None
        angles = measured.found.get("angles")
        dimensions = frozenset([angles.ranks] if angles is not None else [])
        return cls(measured.sums, measured.counts, totals, models, S, dimensions)

    def plus(self, other: Contribution) -> Contribution:
        """Of both sets of weights."""
        counts, models = self.counts, self.models
        if other.counts is not None:
            counts = other.counts if counts is None else counts.plus(other.counts)
        if other.models is not None:
            models = other.models if models is None else models + other.models
        alone = self.S if other.models is None else other.S if self.models is None else None
        totals = {metric: total + other.totals[metric] for metric, total in self.totals.items()}
        dimensions = self.dimensions | other.dimensions
        return Contribution(self.sums.plus(other.sums), counts, totals, models, alone, dimensions)


def datasets(
    metrics: Sequence[str], by: str, names: Sequence[str], groups: Mapping[str, Contribution]
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Values, what chance gives, and the models' spectra, for each group of weights."""
    found = list(groups.values())
    sums = Sums(*map(torch.stack, zip(*(group.sums for group in found), strict=True)))
    tallies = [group.counts for group in found if group.counts is not None]
    counts = Counts(*map(torch.stack, zip(*tallies, strict=True))) if tallies else None
    values: dict[str, Tensor] = {}
    null: dict[str, Tensor] = {}
    for name in metrics:
        metric = METRICS[name]
        if metric.needs in ("sums", "counts"):
            source = sums if metric.needs == "sums" else counts
            values[name] = metric.measure(source)
            if metric.chance is None:
                continue
            mean, variance = metric.chance(source).masked_fill(values[name].isnan(), math.nan)
            deviation = variance.sqrt()
        else:
            totals = torch.stack([group.totals[name] for group in found], dim=1)
            value, mean, variance, count, known = totals.unbind()
            values[name] = value / count
            if metric.chance is None:
                continue
            mean, deviation = mean / known, variance.sqrt() / known
        null[name] = mean
        if not bool(deviation.isnan().all()):
            null[f"{name}_sd"] = deviation
    coordinates = _coordinates(by, names, list(groups))
    data, chance = (
        xr.Dataset(
            {
                name: (("task", "other", "module"), table.movedim(0, -1).numpy())
                for name, table in tables.items()
            },
            coordinates,
        )
        for tables in (values, null)
    )
    for name in metrics:
        data[name].attrs |= {"long_name": METRICS[name].definition, "units": METRICS[name].unit}
    return data, chance, _spectra(by, names, groups)


def _coordinates(by: str, names: Sequence[str], modules: Sequence[str]) -> dict[str, object]:
    layers = [layer_of(module) for module in modules]
    return {
        "task": list(names),
        "other": list(names),
        "module": list(modules),
        "layer": ("module", [-1 if layer is None else layer for layer in layers]),
        "kind": ("module", [kind_of(name) if by == "module" else "" for name in modules]),
    }


def _quantities(spectra: Spectra) -> Tensor:
    """Values and whether they are defined [2, q, n]; the norm squared, to add up."""
    columns = []
    for S, norm, energy, error in zip(*spectra[1:], strict=True):
        own = [math.nan] * 4
        if S is not None:
            own[0] = len(S)
        if S is not None and len(S):
            own[1:] = effective_rank(S), float((norm / S[0]).square()), spectral_entropy(S)
        columns.append([*own, float(norm.square()), float(energy), float(error)])
    table = torch.tensor(columns, dtype=torch.float64).T
    return torch.stack([table.nan_to_num(0.0), (~table.isnan()).double()])


def _spectra(by: str, names: Sequence[str], groups: Mapping[str, Contribution]) -> xr.Dataset:
    found = {name: group.models for name, group in groups.items() if group.models is not None}
    if not found:
        return xr.Dataset()
    total, count = torch.stack(list(found.values()), dim=-1).unbind()
    means = total / count
    place = list(QUANTITIES).index("norm")
    means[place] = total[place].sqrt()
    coordinates = _coordinates(by, names, list(found))
    del coordinates["other"]
    tables = {
        name: (("task", "module"), table.numpy())
        for name, table in zip(QUANTITIES, means, strict=True)
    }
    dataset = xr.Dataset(tables, coordinates)
    for name, definition in QUANTITIES.items():
        dataset[name].attrs["long_name"] = definition
    spectra = [groups[name].S for name in found]
    if by == "module" and all(S is not None for S in spectra):
        longest = max(len(S) for each in spectra for S in each or ())
        padded = torch.full((len(names), len(found), longest), math.nan, dtype=torch.float64)
        for k, each in enumerate(spectra):
            for i, S in enumerate(each or ()):
                padded[i, k, : len(S)] = S
        dataset["singular_values"] = (("task", "module", "direction"), padded.numpy())
        dataset["singular_values"].attrs["long_name"] = (
            "descending, of dense updates the leading ones; NaN after the last"
        )
    return dataset
