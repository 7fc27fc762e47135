"""Spectra: how the updates of each model use their directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from alliage.report.figures.figure import Figure, Panel, View, data
from alliage.report.figures.marks import legend_of_lines, line_class
from alliage.report.figures.svg import (
    WIDTH,
    Scale,
    axes,
    element,
    group,
    image,
    left_margin,
    path,
    scale,
    shorten,
)  # fmt: skip
from alliage.report.words import number

if TYPE_CHECKING:
    import pandas as pd

MODEL_LIMIT = 28  # so many lines differ by colour or dashes
_HEIGHT = 220.0


@dataclass(frozen=True, slots=True)
class Spectra:
    """Singular values of models as shares of each module's sum, mean over modules.

    Attributes:
        modules: a kind of module, or "all modules".
        names: of the models, n of them.
        shares: float64 [n, directions].
        effective_ranks: float64 [n], e^H of each module's shares, mean over modules.
    """

    modules: str
    names: tuple[str, ...]
    shares: np.ndarray
    effective_ranks: np.ndarray


def spectra(table: pd.DataFrame) -> list[Spectra]:
    """The spectra of all modules, then those of each kind, from the table "spectra"."""
    if table.empty:
        return []
    found = [_spectra("all modules", table)]
    kinds = sorted(table["kind"].unique())
    if len(kinds) > 1:
        found += [_spectra(str(kind), table[table["kind"] == kind]) for kind in kinds]
    return found


def _spectra(modules: str, table: pd.DataFrame) -> Spectra:
    each = table.groupby(["model", "module"])["value"]
    sums = each.transform("sum")
    used = table[sums > 0].assign(share=table["value"] / sums)
    wide = used.pivot_table(index=["model", "module"], columns="direction", values="share")
    shares = wide.fillna(0.0)  # directions that a module does not have
    entropy = -(shares * np.log(shares.where(shares > 0, 1.0))).sum(axis=1)
    means = shares.groupby("model").mean()
    ranks = np.exp(entropy).groupby("model").mean()
    return Spectra(modules, tuple(map(str, means.index)), means.to_numpy(), ranks.to_numpy())


def spectrum_curves(found: Sequence[Spectra]) -> Figure:
    """One picture for each kind of module, with a line for each model.

    Args:
        found: at least one.
    """
    rows = [
        (one.modules, name, direction + 1, float(share), float(rank))
        for one in found
        for name, shares, rank in zip(one.names, one.shares, one.effective_ranks, strict=True)
        for direction, share in enumerate(shares)
    ]
    most = max(len(one.names) for one in found)
    left_out = f"The first {MODEL_LIMIT} of {most} models by name are drawn."
    return Figure(
        id="spectra",
        title="Spectra of the updates",
        caption=(
            "Singular values of each module's update as shares of their sum, mean over modules. "
            "A steep line: few directions do the work. Behind each name the effective rank, e to "
            "the entropy of the shares."
        ),
        selectors=("Modules",),
        views=tuple(View((one.modules,), (Panel(_draw(one)),)) for one in found),
        data=data(("modules", "model", "direction", "share", "effective rank"), rows),
        tables=("spectra",),
        notes=(left_out,) if most > MODEL_LIMIT else (),
    )


def _draw(one: Spectra) -> Markup:
    names = one.names[:MODEL_LIMIT]
    shown = [
        f"{shorten(name, 200)} ({number(float(rank))})"
        for name, rank in zip(names, one.effective_ranks, strict=False)
    ]
    legend, above = legend_of_lines(shown, 2, 14, WIDTH - 2)
    top = above + 28
    bottom = top + _HEIGHT
    y = scale([0.0, float(one.shares.max())], bottom, top)
    y = Scale(0.0, y.high, bottom, top)
    last = max(one.shares.shape[1], 2)
    x = Scale(1, last, left_margin(y) + 4, WIDTH - 10, whole=True)
    parts = [legend, axes(x, y, "direction, largest first", "share of the sum")]
    for index, (name, shares) in enumerate(zip(names, one.shares, strict=False)):
        points = [(x(direction + 1), y(float(share))) for direction, share in enumerate(shares)]
        parts.append(element("path", class_=line_class(index), d=path(points)))
        parts += [
            element("circle", class_=line_class(index, "dot"), cx=u, cy=v, r=3, data_model=name,
                    data_tip=f"{name}, direction {direction + 1}: {number(float(share))}")
            for direction, ((u, v), share) in enumerate(zip(points, shares, strict=True))
        ]  # fmt: skip
    return image(
        [group(parts)], WIDTH, bottom + 42, f"Spectra of {len(names)} models, {one.modules}"
    )
