"""Spectra: how the updates of each model use their directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from alliage.geometry.mapping.spectrum_curves import SpectrumCurves
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
from alliage.report.runs import by_run
from alliage.report.words import number

if TYPE_CHECKING:
    import pandas as pd

MODEL_LIMIT = 28  # so many lines differ by colour or dashes
_HEIGHT = 220.0


@dataclass(frozen=True, slots=True)
class Spectra:
    """Singular values of models as shares of each module's sum, mean over modules.

    Attributes:
        modules: a kind of module, or "all modules", and the run where there are several.
        names: of the models, n of them.
        shares: float64 [n, directions]; NaN for a model that equals the base.
        effective_ranks: float64 [n], e^H of each module's shares, mean over modules.
    """

    modules: str
    names: tuple[str, ...]
    shares: np.ndarray
    effective_ranks: np.ndarray


def spectra(table: pd.DataFrame) -> list[Spectra]:
    """The spectra of all modules, then those of each kind, from the table "spectra", by run.

    Raises:
        ValueError: a run that holds a direction twice.
    """
    found = []
    for run in by_run(table):
        found.append(_spectra(run.named("all modules"), run.rows))
        kinds = sorted(run.rows["kind"].unique())
        if len(kinds) > 1:
            found += [
                _spectra(run.named(str(kind)), run.rows[run.rows["kind"] == kind]) for kind in kinds
            ]
    return found


def _spectra(modules: str, table: pd.DataFrame) -> Spectra:
    rows = table.rename(columns={"model": "task"})
    values = rows.set_index(["task", "module", "direction"])["value"].to_xarray()
    curves = SpectrumCurves.of(values)
    return Spectra(modules, curves.names, curves.shares, curves.effective_ranks)


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
        f"{shorten(name, 200)} ({_known(float(rank))})"
        for name, rank in zip(names, one.effective_ranks, strict=False)
    ]
    legend, above = legend_of_lines(shown, 2, 14, WIDTH - 2)
    top = above + 28
    bottom = top + _HEIGHT
    y = scale([0.0, float(np.nanmax(one.shares, initial=0.0))], bottom, top)
    y = Scale(0.0, y.high, bottom, top)
    last = max(one.shares.shape[1], 2)
    x = Scale(1, last, left_margin(y) + 4, WIDTH - 10, whole=True)
    parts = [legend, axes(x, y, "direction, largest first", "share of the sum")]
    for index, (name, shares) in enumerate(zip(names, one.shares, strict=False)):
        if np.isnan(shares).all():
            continue
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


def _known(rank: float) -> str:
    return "equals the base" if math.isnan(rank) else number(rank)
