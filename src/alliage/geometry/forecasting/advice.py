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
    for method in found.methods:
        points = [e.points for e in found.pairs(method).values() if not e.refused]
        if not points:
            continue
        mean = sum(points) / len(points)
        for each in learned.comparisons:
            fits = each.form == form and each.against == method and each.low <= mean < each.high
            if fits and abs(each.difference) > _CLEAR * each.error:
                lines.append(_told(each))
    return lines


def _told(each: Comparison) -> str:
    less = "less" if each.difference < 0 else "more"
    span = f"{each.low:g} points and more" if each.high > 100 else f"{each.low:g} to {each.high:g}"
    if each.low < 0:
        span = f"less than {each.high:g} points"
    return (
        f"Where {each.against} cost {span}, {each.method} cost {abs(each.difference):.1f} points "
        f"{less} (± {each.error:.1f}, {each.losses} measured losses)."
    )
