"""Distances by depth: mean over pairs at each layer, with the range of the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from alliage.report.distances import Profile
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
)  # fmt: skip
from alliage.report.words import metric_label, metric_name, number

_HEIGHT = 210.0


def layer_profiles(found: Sequence[Profile]) -> Figure:
    """One picture for each metric and group of models, with a line for each kind of module.

    Args:
        found: at least one profile, sorted by metric and group.
    """
    views = [
        View((models, metric_name(metric)), (Panel(_draw(metric, list(part))),))
        for (metric, models), part in groupby(found, key=lambda one: (one.metric, one.models))
    ]
    rows = [
        (one.models, one.metric, one.kind, int(layer), float(low), float(mean), float(high))
        for one in found
        for layer, low, mean, high in zip(one.layers, one.low, one.mean, one.high, strict=True)
    ]
    return Figure(
        id="layer-profile",
        title="Distances by depth",
        caption="Line: mean over all pairs of models. Band: from the nearest to the farthest pair.",
        selectors=("Models", "Metric"),
        views=tuple(views),
        data=data(("models", "metric", "kind", "layer", "lowest", "mean", "highest"), rows),
        tables=("distances",),
    )


def _draw(metric: str, found: Sequence[Profile]) -> Markup:
    legend, above = legend_of_lines([one.kind for one in found], 2, 14, WIDTH - 2)
    top = above + 28
    bottom = top + _HEIGHT
    depth = [int(layer) for one in found for layer in one.layers]
    y = scale([value for one in found for value in (*one.low, *one.high)], bottom, top)
    x = Scale(min(depth), max(depth), left_margin(y), WIDTH - 10, whole=True)
    parts = [legend, axes(x, y, "layer, from 0", metric_label(metric))]
    for index, one in enumerate(found):
        upper = [(x(layer), y(value)) for layer, value in zip(one.layers, one.high, strict=True)]
        lower = [(x(layer), y(value)) for layer, value in zip(one.layers, one.low, strict=True)]
        middle = [(x(layer), y(value)) for layer, value in zip(one.layers, one.mean, strict=True)]
        parts.append(
            element("path", class_=line_class(index, "band"), d=path([*upper, *lower[::-1]]) + "Z")
        )
        parts.append(element("path", class_=line_class(index), d=path(middle)))
        parts += [
            element("circle", class_=line_class(index, "dot"), cx=u, cy=v, r=3, data_tip=(
                f"{one.kind}, layer {layer}: {number(float(mean))} "
                f"({number(float(low))} to {number(float(high))})"
            ))
            for (u, v), layer, low, mean, high in zip(
                middle, one.layers, one.low, one.mean, one.high, strict=True
            )
        ]  # fmt: skip
    kinds = ", ".join(one.kind for one in found)
    return image([group(parts)], WIDTH, bottom + 42, f"{metric_name(metric)} by layer: {kinds}")
