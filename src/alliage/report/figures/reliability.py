"""Reliability diagrams with counts, and calibration errors of all models at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from alliage.report.calibration import CalibrationError, Diagram
from alliage.report.figures.dots import Dot, dot_chart
from alliage.report.figures.figure import Figure, Panel, View, data
from alliage.report.figures.svg import WIDTH, Scale, axes, element, group, image, path
from alliage.report.scores import ECE
from alliage.report.words import count, score

DIAGRAM_LIMIT = 200
ROW_LIMIT = 60
_LEFT, _SIDE, _COUNTS = 44.0, 300.0, 56.0


def reliability_diagrams(found: Sequence[Diagram], order: Mapping[str, int]) -> Figure:
    """One diagram for each model and task (DeGroot and Fienberg 1983; arXiv:1706.04599).

    Args:
        found: the diagrams; at least one.
        order: model -> rank; diagrams of lower rank come first.
    """
    ordered = sorted(found, key=lambda one: (order[one.model], one.task))
    views = []
    for one in ordered[:DIAGRAM_LIMIT]:
        caption = (
            f"{one.model} on {one.task}: expected calibration error {score(one.error, ECE)} from "
            f"{count(len(one.bins), 'bin')}, {count(one.examples, 'example')}."
        )
        views.append(View((one.model, one.task), (Panel(_draw(one), caption),)))
    rows = [(one.model, one.task, *each) for one in ordered for each in one.bins]
    more = len(ordered) - len(views)
    curves = any(one.curve for one in ordered)
    return Figure(
        id="reliability",
        title="Reliability diagrams",
        caption=(
            "Bars: share of right answers in each bin of confidence; framed: the gap to the bin's "
            "mean confidence. A calibrated model's bars end on the diagonal. Below: examples in "
            "each bin."
            + (
                " Line: accuracy without bins, smoothed (arXiv:2309.12236); around the diagonal: "
                "where 95 % of such lines of a calibrated model lie."
                if curves
                else ""
            )
        ),
        selectors=("Model", "Task"),
        views=tuple(views),
        data=data(("model", "task", "low", "high", "confidence", "accuracy", "examples"), rows),
        tables=("reliability", "reliability_curves") if curves else ("reliability",),
        notes=(f"{more} more diagrams are not drawn.",) if more else (),
    )


def calibration_overview(
    errors: Sequence[CalibrationError],
    roles: Mapping[str, str],
    order: Mapping[str, int],
    table: str,
) -> Figure:
    """Expected calibration errors: a row for each model, a mark for each task.

    Args:
        errors: at least one.
        roles: model -> role.
        order: model -> rank, as the rows go.
        table: the results table that the errors come from.
    """
    models = sorted({one.model for one in errors}, key=lambda model: order[model])
    dots: dict[str, list[Dot]] = {model: [] for model in models[:ROW_LIMIT]}
    for one in errors:
        if one.model in dots:
            tip = f"{one.model} on {one.task}: {score(one.value, ECE)}"
            dots[one.model].append(Dot(one.value, one.model, roles[one.model], tip))
    title = f"Expected calibration error of {len(dots)} models"
    svg = dot_chart(list(dots.items()), "expected calibration error", title, zero=True)
    more = len(models) - len(dots)
    return Figure(
        id="calibration-error",
        title="Calibration errors",
        caption="Each mark is one task. A calibrated model's error is 0.",
        selectors=(),
        views=(View((), (Panel(svg),)),),
        data=data(("model", "task", ECE), errors),
        tables=(table,),
        notes=(f"{more} more models are not drawn.",) if more else (),
    )


def _draw(diagram: Diagram) -> Markup:
    x = Scale(0.0, 1.0, _LEFT, _LEFT + _SIDE)
    y = Scale(0.0, 1.0, _SIDE + 30.0, 30.0)
    base = y.start + 58 + _COUNTS
    most = max(one.examples for one in diagram.bins)
    parts: list[str] = [axes(x, y, "confidence", "accuracy")]
    counts: list[str] = []
    for one in diagram.bins:
        left, width = x(one.low), x(one.high) - x(one.low)
        reached, ideal = y(one.accuracy), y(one.confidence)
        height = one.examples / most * _COUNTS
        tip = (
            f"Confidence {one.low:.2f} to {one.high:.2f}: mean {one.confidence:.3f}, "
            f"accuracy {one.accuracy:.3f}, {count(one.examples, 'example')}"
        )
        parts += [
            element("rect", class_="bar", x=left, y=reached, width=width,
                    height=y.start - reached),
            element("rect", class_="gap", x=left, y=min(reached, ideal), width=width,
                    height=abs(reached - ideal)),
            # A small bar is hard to hit: its whole column says what it is.
            element("rect", class_="hit", x=left, y=y.stop, width=width,
                    height=y.start - y.stop, data_tip=tip),
        ]  # fmt: skip
        counts.append(
            element("rect", class_="count", x=left, y=base - height, width=width, height=height)
        )
    if diagram.curve:
        upper = [(x(one.confidence), y(one.chance_high)) for one in diagram.curve]
        lower = [(x(one.confidence), y(one.chance_low)) for one in diagram.curve]
        line = [(x(one.confidence), y(one.accuracy)) for one in diagram.curve]
        parts += [
            element("path", class_="band hue-6", d=path([*upper, *lower[::-1]]) + "Z"),
            element("path", class_="line hue-6", d=path(line)),
        ]
    parts.append(element("line", class_="diagonal", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
    counts += [
        element("line", class_="axis", x1=x(0), x2=x(1), y1=base, y2=base),
        element("text", f"examples, at most {most:,} in a bin", class_="label",
                x=(x.start + x.stop) / 2, y=base + 16, text_anchor="middle"),
    ]  # fmt: skip
    title = (
        f"Reliability diagram of {diagram.model} on {diagram.task}, "
        f"expected calibration error {score(diagram.error, ECE)}"
    )
    return image([group(parts), group(counts)], WIDTH, base + 26, title)
