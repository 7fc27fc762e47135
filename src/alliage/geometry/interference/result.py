"""What was counted of interference, and the shares that follow from it."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from alliage.checkpoints.names import stack_of
from alliage.errors import Problem, UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from alliage.geometry.interference.words import Table
    from alliage.geometry.mapping.picture import Picture

COLUMNS = ("measure", "by", "group", "step", "top_k", "models", "first", "second", "value")
GROUPINGS = ("model", "layer", "kind", "module")
INFLUENCE = ("redundant", "for one model", "for several models")
MEASURES: Mapping[str, str] = {
    "conflict": "share, of the parameters that two or more models keep, whose signs disagree",
    "conflict_of_all": "the same of all parameters",
    "random": "what `conflict` would be if the signs of the same kept entries were random",
    "overlap": "parameters that both models keep, of those that either keeps (Jaccard)",
    "random_overlap": "what `overlap` would be if the places of the kept entries were random",
    "influence": "share of the parameters that so many models keep",
    "magnitude": "mean |merged task vector|, in units of the weights",
    "deviation": "standard deviation of |merged task vector| over parameters",
}


@dataclass(frozen=True)
class Interference:
    """Where task vectors get in each other's way, as counts of parameters.

    A model keeps a parameter where its change is among the largest (top-k) and not zero. Signs of
    two or more models that keep a parameter conflict where they are not all the same.

    Attributes:
        data: counts with the dimensions top_k (shares kept), module (with the coordinates `layer`,
            −1 outside the stack, and `kind`), task and other (models), keeping (0 to n models),
            subset (of models, with the coordinate `number`), step and agreement (of merges; see
            `steps`). `both` and `opposed` are of pairs, `shared`, `conflicting` and `expected` of
            all models, `threshold` is each model's smallest kept magnitude.
        top_k: the share at which subsets and magnitudes were measured.
        notes: what was left out, and why, one sentence each.
    """

    data: xr.Dataset
    top_k: float
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The models'."""
        return tuple(self.data["task"].values.tolist())

    def conflicts(self, by: str = "model") -> xr.Dataset:
        """Sign conflicts among all models, for each share kept.

        Args:
            by: "model", "layer", "kind" or "module": of whose parameters.

        Returns:
            `conflict`, `conflict_of_all` and `random` of `MEASURES`, with the dimensions top_k and
            group; from 0 to 1, NaN where no two models keep the same parameter.

        Raises:
            UsageError: an unknown grouping.
        """
        counts = self._grouped(by)
        return xr.Dataset(
            {
                "conflict": _share(counts["conflicting"], counts["shared"]),
                "conflict_of_all": _share(counts["conflicting"], counts["parameters"]),
                "random": _share(counts["expected"], counts["shared"]),
            }
        ).transpose("top_k", "group")

    def by_number(self) -> xr.Dataset:
        """Sign conflicts at `top_k` by the number of models, 2 to n.

        Returns:
            `conflict`, `conflict_of_all` and `random` of `MEASURES`: means over `subsets` subsets
            of that number; and the range of `conflict_of_all` over them, `low` and `high`. NaN
            where no subset keeps a common parameter.
        """
        data, numel = self.data, self.data["parameters"].sum("module")
        of_all = _share(data["subset_conflicting"], numel)
        shares = xr.Dataset(
            {
                "conflict": _share(data["subset_conflicting"], data["subset_shared"]),
                "conflict_of_all": of_all,
                "random": _share(data["subset_expected"], data["subset_shared"]),
            }
        ).groupby("number")
        grouped = of_all.groupby("number")
        extremes = {"low": grouped.min(), "high": grouped.max(), "subsets": grouped.count()}
        return shares.mean().assign(extremes)

    def pairs(self, by: str = "model") -> xr.Dataset:
        """What any two models keep, for each share kept.

        Args:
            by: "model", "layer", "kind" or "module": of whose parameters.

        Returns:
            `conflict`, `overlap` and `random_overlap` of `MEASURES`, with the dimensions top_k,
            group, task and other, symmetric in the last two; from 0 to 1. NaN: a model with
            itself, the conflict of models that keep no common parameter, the overlap of models that
            keep none at all.

        Raises:
            UsageError: an unknown grouping.
        """
        counts = self._grouped(by)
        both = counts["both"].transpose("top_k", "group", "task", "other")
        numel = counts["parameters"]
        kept = both.values.diagonal(axis1=-2, axis2=-1)
        each = both.copy(data=np.broadcast_to(kept[..., :, None], both.shape))
        other = both.copy(data=np.broadcast_to(kept[..., None, :], both.shape))
        chance = _share(each * other, numel)
        two = xr.DataArray(~np.eye(len(self.names), dtype=bool), dims=("task", "other"))
        found = xr.Dataset(
            {
                "conflict": _share(counts["opposed"], both),
                "overlap": _share(both, each + other - both),
                "random_overlap": _share(chance, each + other - chance),
            }
        )
        return found.where(two).transpose("top_k", "group", "task", "other")

    def influence(self, by: str = "model") -> xr.DataArray:
        """How many models keep a parameter: shares of all, dimensions top_k, group and keeping.

        Those that none keeps are redundant.

        Raises:
            UsageError: an unknown grouping.
        """
        counts = self._grouped(by)
        return _share(counts["influential"], counts["parameters"]).transpose(
            "top_k", "group", "keeping"
        )

    def magnitudes(self, by: str = "influence") -> xr.Dataset:
        """Sizes of merged parameters after each step of TIES, at `top_k`.

        Args:
            by: "influence": redundant parameters, those that one model keeps, and those that
                several do; "keeping": by how many do; "agreement": by the share of models on the
                side of the majority, of those that change the parameter.

        Returns:
            `magnitude` and `deviation` of `MEASURES` with the dimensions step and by, and how many
            `parameters` they are of; NaN where there are none.

        Raises:
            UsageError: an unknown grouping.
        """
        data = self.data
        fields = {"count": "magnitude_count", "total": "magnitude_total",
                  "squares": "magnitude_squares"}  # fmt: skip
        if by == "agreement":
            parts = {key: data[name].sum("keeping") for key, name in fields.items()}
        elif by in ("influence", "keeping"):
            parts = {key: data[name].sum("agreement") for key, name in fields.items()}
        else:
            choices = ("influence", "keeping", "agreement")
            raise UsageError(Problem(f"by {by!r}", "is unknown.", nearest(by, choices)))
        if by == "influence":
            kinds = np.minimum(data["keeping"].values, 2)
            parts = {
                key: part.groupby(xr.DataArray(kinds, dims="keeping", name="influence"))
                .sum()
                .assign_coords(influence=list(INFLUENCE))
                for key, part in parts.items()
            }
        mean = _share(parts["total"], parts["count"])
        spread = _share(parts["squares"], parts["count"]) - mean**2
        found = {
            "magnitude": mean,
            "deviation": spread.clip(min=0) ** 0.5,
            "parameters": parts["count"].astype(np.int64),
        }
        return xr.Dataset(found).transpose("step", by)

    def to_rows(self) -> Iterator[dict[str, Any]]:
        """All shares and magnitudes, as rows of the results table "interference"."""
        count = len(self.names)
        for by in GROUPINGS:
            for measure, shares in self.conflicts(by).data_vars.items():
                yield from _rows(shares, measure=measure, by=by, models=count)
            pairs = self.pairs(by)
            for measure, shares in pairs.data_vars.items():
                for i, j in itertools.combinations(range(count), 2):
                    two = {"first": self.names[i], "second": self.names[j]}
                    some = shares.isel(task=i, other=j, drop=True)
                    yield from _rows(some, measure=measure, by=by, models=2, **two)
        numbers = self.by_number()
        for measure in ("conflict", "conflict_of_all", "random"):
            for number in range(2, count):
                value = numbers[measure].sel(number=number, drop=True)
                yield from _rows(value, measure=measure, models=number, top_k=self.top_k)
        for keeping in range(count + 1):
            share = self.influence().sel(keeping=keeping, group="model", drop=True)
            named = {"by": "keeping", "group": str(keeping)}
            yield from _rows(share, measure="influence", models=count, **named)
        for by in ("keeping", "agreement"):
            sizes = self.magnitudes(by)
            for measure in ("magnitude", "deviation"):
                renamed = sizes[measure].rename({by: "group"})
                yield from _rows(renamed, measure=measure, by=by, models=count, top_k=self.top_k)

    def to_pandas(self) -> pd.DataFrame:
        """The same as a data frame."""
        import pandas as pd

        return pd.DataFrame(self.to_rows())

    def findings(self) -> list[str]:
        """What stands out, a sentence each."""
        from alliage.geometry.interference.words import findings

        return findings(self)

    def tables(self) -> list[Table]:
        """Small tables for people."""
        from alliage.geometry.interference.words import tables

        return tables(self)

    def picture(self, name: str = "number") -> Picture:
        """A picture that shows itself in a notebook, with `figure()`, `svg()` and `to_pandas()`.

        Args:
            name: "number": conflicts by the number of models; "top_k": by the share kept;
                "influence", "agreement": magnitudes after each step of a merge; "kinds": conflicts
                by kind of module and layer; "pairs": conflict and overlap of any two models.

        Raises:
            UsageError: an unknown name.
        """
        from alliage.geometry.interference.figures import PICTURES, InterferencePicture

        if name not in PICTURES:
            raise UsageError(Problem(f"picture {name!r}", "is unknown.", nearest(name, PICTURES)))
        return InterferencePicture(self, name)

    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """All of them that have something to show, under their names."""
        from alliage.geometry.interference.figures import PICTURES

        for name in PICTURES:
            if name != "kinds" or (self.data["layer"].values >= 0).any():
                yield name, self.picture(name)

    def _grouped(self, by: str) -> xr.Dataset:
        """Counts summed over the modules of each group, whose dimension is "group"."""
        if by not in GROUPINGS:
            raise UsageError(Problem(f"by {by!r}", "is unknown.", nearest(by, GROUPINGS)))
        modules = self.data["module"].values.tolist()
        labels = {
            "model": ["model"] * len(modules),
            "module": modules,
            "kind": self.data["kind"].values.tolist(),
            "layer": [
                f"{stack_of(module)}.{layer}" if layer >= 0 else "outside the layers"
                for module, layer in zip(modules, self.data["layer"].values.tolist(), strict=True)
            ],
        }[by]
        counted = self.data[[name for name in self.data if "module" in self.data[name].dims]]
        groups = list(dict.fromkeys(labels))
        sums = [
            counted.isel(module=[place for place, label in enumerate(labels) if label == group])
            .drop_vars(["module", "layer", "kind"])
            .sum("module")
            for group in groups
        ]
        return xr.concat(sums, xr.Variable("group", groups))

    def __repr__(self) -> str:
        from alliage.geometry.interference.words import percent

        modules, numel = self.data.sizes["module"], int(self.data["parameters"].sum())
        return (
            f"<Interference of {len(self.names)} models, {numel:,} parameters in {modules} "
            f"modules, top {percent(self.top_k)}>"
        )

    def _repr_html_(self) -> str:
        import pandas as pd

        parts = [f"<p>{html.escape(repr(self)[1:-1])}.</p>"]
        for title, columns, rows, _ in self.tables():
            frame = pd.DataFrame(rows, columns=list(columns))
            table = frame.to_html(
                index=False, float_format=lambda value: f"{value:.4g}", na_rep="–", border=0
            )
            parts.append(f"<p><b>{html.escape(title)}</b></p>{table}")
        parts += [f"<p>{html.escape(line)}</p>" for line in (*self.findings(), *self.notes)]
        return "\n".join(parts)


def _share(some: xr.DataArray, of: xr.DataArray) -> xr.DataArray:
    """NaN of none."""
    return some / of.where(of > 0)


def _rows(values: xr.DataArray, **known: Any) -> Iterator[dict[str, Any]]:
    """A row for each value that is defined; a dimension's name is a column's."""
    blank = {"by": "model", "group": "model", "step": "", "first": "", "second": ""}
    dims = [str(dim) for dim in values.dims]
    keys = itertools.product(*(values[dim].values.tolist() for dim in dims))
    for key, value in zip(keys, values.values.ravel().tolist(), strict=True):
        if not math.isnan(value):
            row = {**blank, **known, **dict(zip(dims, key, strict=True)), "value": value}
            yield {name: row[name] for name in COLUMNS} | {"group": str(row["group"])}
