"""Which method to merge by, in words and with the measurements behind them."""

from __future__ import annotations

from alliage.geometry.forecasting.learned import Comparison, Learned
from alliage.geometry.forecasting.result import Forecast

_CLEAR = 2.0  # standard errors that a difference must be away from zero


def advise(found: Forecast, learned: Learned, form: str) -> list[str]:
    """Sentences: what cost less in measured merges whose loss was like the one expected here.

    Args:
        found: the forecast.
        learned: with the measured comparisons.
        form: how the models were tuned.
    """
    lines = []
    if len(found.methods) > 1 and (best := found.best()) is not None:
        means = {
            method: sum(points) / len(points)
            for method in found.methods
            if (points := [e.points for e in found.pairs(method).values() if not e.refused])
        }
        others = ", ".join(f"{m} {value:.1f}" for m, value in means.items() if m != best)
        if others:
            lines.append(
                f"Merge by {best}: expected to cost {means[best]:.1f} points in the mean over "
                f"pairs ({others})."
            )
    told: set[frozenset[str]] = set()
    for method in found.methods if found.needs == "answers" else ():
        points = [e.points for e in found.pairs(method).values() if not e.refused]
        if not points:
            continue
        mean = sum(points) / len(points)
        for each in learned.comparisons:
            fits = each.form == form and each.against == method and each.low <= mean < each.high
            pair = frozenset((each.method, each.against))
            if fits and pair not in told and abs(each.difference) > _CLEAR * each.error:
                told.add(pair)
                lines.append(_told(each))
    return lines


def _told(each: Comparison) -> str:
    less = "less" if each.difference < 0 else "more"
    span = f"{each.low:g} points and more" if each.high > 100 else f"{each.low:g} to {each.high:g}"
    if each.low < 0:
        span = f"less than {each.high:g} points"
    against, method = (_named(name) for name in (each.against, each.method))
    return (
        f"Where {against} cost {span}, {method} cost {abs(each.difference):.1f} points "
        f"{less} (± {each.error:.1f}, {each.losses} measured losses)."
    )


def _named(method: str) -> str:
    """With its scale of the sum of task vectors, for pairs."""
    scale = {"average": 0.5, "task_arithmetic": 0.4}.get(method)
    return method if scale is None else f"{method} (λ = {scale:g})"
