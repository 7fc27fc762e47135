"""Interference in words and small tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from alliage.geometry.interference.steps import STEPS

if TYPE_CHECKING:
    import xarray as xr

    from alliage.geometry.interference.result import Interference


class Table(NamedTuple):
    """A small table.

    Attributes:
        title: with what its numbers are shares of.
        columns: their headings.
        rows: of text, numbers, or None for what is not defined.
        words: how many columns, from the left, are text.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    words: int = 1


def percent(share: float) -> str:
    """A share in percent, with three significant digits at most.

    >>> percent(0.2), percent(0.4567), percent(0.00012)
    ('20%', '45.7%', '0.012%')
    """
    return f"{Decimal(f'{100 * share:.3g}'):f}%"


def tables(found: Interference) -> list[Table]:
    """By the share kept, by the number of models, by kind of module, by pair, magnitudes."""
    shares = found.conflicts().isel(group=0)
    numbers = found.by_number()
    kinds = found.conflicts("kind").sel(top_k=found.top_k)
    pairs = found.pairs().isel(group=0).sel(top_k=found.top_k)
    sizes = found.magnitudes()["magnitude"]
    top = f"top {percent(found.top_k)}"
    return [
        Table(
            f"Sign conflicts of all {len(found.names)} models by the share kept",
            ("top-k", "of shared", "of all", "random signs"),
            _lines(shares, "top_k", ("conflict", "conflict_of_all", "random"), percent),
        ),
        Table(
            f"Sign conflicts by the number of models, {top}",
            ("models", "of shared", "of all", "random signs", "subsets"),
            _lines(numbers, "number", ("conflict", "conflict_of_all", "random", "subsets"), str),
        ),
        Table(
            f"Sign conflicts by kind of module, {top}",
            ("kind", "of shared", "of all", "random signs"),
            _lines(kinds, "group", ("conflict", "conflict_of_all", "random"), str),
        ),
        Table(
            f"Pairs, {top}: sign conflict, and overlap of what they keep",
            ("first", "second", "conflict", "overlap", "random places"),
            [
                (
                    found.names[i],
                    found.names[j],
                    *(
                        _cell(float(pairs[name][i, j]))
                        for name in ("conflict", "overlap", "random_overlap")
                    ),
                )
                for i, j in itertools.combinations(range(len(found.names)), 2)
            ],
            words=2,
        ),
        Table(
            f"Mean magnitude of merged parameters, {top}",
            ("after", *sizes["influence"].values.tolist()),
            [
                (STEPS[step], *(_cell(value, 4) for value in sizes.sel(step=step).values.tolist()))
                for step in STEPS
            ],
        ),
    ]


def findings(found: Interference) -> list[str]:
    """What stands out, a sentence each."""
    top = f"top {percent(found.top_k)}"
    count = len(found.names)
    at = found.conflicts().isel(group=0).sel(top_k=found.top_k)
    conflict, of_all, random = (float(at[n]) for n in ("conflict", "conflict_of_all", "random"))
    if math.isnan(conflict):
        return [f"No two models keep a common parameter ({top}): no signs can conflict."]
    which = "both" if count == 2 else "two or more"
    lines = [
        f"Signs conflict in {percent(conflict)} of the parameters that {which} models keep "
        f"({top}), {percent(of_all)} of all; random signs would in {percent(random)}."
    ]
    shares = found.conflicts().isel(group=0)["conflict_of_all"]
    (low, fewest), (high, most) = (
        (percent(float(shares[place])), percent(float(shares["top_k"][place]))) for place in (0, -1)
    )
    lines.append(f"By the share kept: {low} of all parameters at {fewest}, {high} at {most}.")
    if count > 2:
        numbers = found.by_number()["conflict_of_all"]
        lines.append(
            f"By the number of models: {percent(float(numbers.sel(number=2)))} of all parameters "
            f"with 2, {percent(float(numbers.sel(number=count)))} with {count}."
        )
        lines += _pair_finding(found)
    none, one, *more = found.influence().isel(group=0).sel(top_k=found.top_k).values.tolist()
    lines.append(
        f"{percent(none)} of the parameters are redundant, {percent(one)} matter to one model, "
        f"{percent(sum(more))} to several."
    )
    return [*lines, *_kind_finding(found), *_shrinkage(found)]


def _kind_finding(found: Interference) -> list[str]:
    """The extremes, and how many parameters they rest on."""
    kinds = found.conflicts("kind").sel(top_k=found.top_k)["conflict"].dropna("group")
    ordered = kinds.sortby(kinds)
    if kinds.sizes["group"] < 2 or ordered[0] == ordered[-1]:
        return []
    shared = found.data["shared"].sel(top_k=found.top_k)
    least, most = (
        f"{kind['group'].item()} ({percent(float(kind))} of "
        f"{int(shared.values[shared['kind'].values == kind['group'].item()].sum()):,} shared)"
        for kind in (ordered[0], ordered[-1])
    )
    return [f"Most conflicts by kind of module: {most}; fewest: {least}."]


def _pair_finding(found: Interference) -> list[str]:
    pairs = found.pairs().isel(group=0).sel(top_k=found.top_k)
    values = {
        (i, j): float(pairs["conflict"][i, j])
        for i, j in itertools.combinations(range(len(found.names)), 2)
    }
    defined = sorted((value, pair) for pair, value in values.items() if not math.isnan(value))
    (least, near), (most, far) = defined[0], defined[-1]
    if least == most:  # or of the only pair
        return []
    named = [" – ".join(found.names[i] for i in pair) for pair in (far, near)]
    return [
        f"Pairs: most conflicts {named[0]} ({percent(most)}), fewest {named[1]} ({percent(least)})."
    ]


def _shrinkage(found: Interference) -> list[str]:
    """How much smaller plain means are than TIES leaves the same parameters."""
    sizes = found.magnitudes()["magnitude"]
    mean, ties = sizes.sel(step="mean").values, sizes.sel(step="ties").values
    parts = [
        f"{mean[place] / ties[place]:.2f} {where}"
        for place, where in ((1, "where one model matters"), (2, "where several do"))
        if ties[place] > 0
    ]
    if not parts:
        return []
    return [f"A plain mean has, of the magnitude that TIES leaves, {', '.join(parts)}."]


def _lines(
    shares: xr.Dataset, axis: str, names: Sequence[str], label: Any
) -> list[tuple[Any, ...]]:
    return [
        (
            percent(value) if label is percent else str(value),
            *(_cell(float(shares[name].values[place])) for name in names),
        )
        for place, value in enumerate(shares[axis].values.tolist())
    ]


def _cell(value: float, digits: int = 4) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{digits}g}")
