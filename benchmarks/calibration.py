"""Exact measures of calibration as predictions grow, beside HiGHS where it can follow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog
from scipy.special import expit

from alliage.evaluation.calibration import (
    dual_post_processing_gap,
    dual_smooth_calibration_error,
    expected_calibration_error,
    lower_calibration_distance,
    post_processing_gap,
    smooth_calibration_error,
    smoothed_reliability,
)
from alliage.evaluation.calibration.repairs import LipschitzIsotonic
from benchmarks._report import report

Floats = NDArray[np.float64]

SIZES = (1_000, 10_000, 100_000, 1_000_000, 5_000_000)
SOLVER_SIZE = 10_000  # the largest that HiGHS is given
RUNS = 3
_TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def main() -> None:
    """Time every measure on distinct predictions of an overconfident model, and write medians."""
    _timed(lambda: smooth_calibration_error([0.5], [1]))  # compiles
    _timed(lambda: post_processing_gap([0.5], [1]))
    rows, details = [], {}
    for size in SIZES:
        logits, labels = drawn(size)
        values = expit(logits)
        smooth, smooth_seconds = _timed(lambda v=values, y=labels: smooth_calibration_error(v, y))
        _, gap_seconds = _timed(lambda v=values, y=labels: post_processing_gap(v, y))
        measures: dict[str, Callable[[], Any]] = {
            "dual smCE": lambda t=logits, y=labels: dual_smooth_calibration_error(t, y),
            "dual pGap": lambda t=logits, y=labels: dual_post_processing_gap(t, y),
            "lower distance": lambda v=values, y=labels: lower_calibration_distance(v, y),
            "smoothed diagram": lambda v=values, y=labels: smoothed_reliability(v, y),
            "binned ECE": lambda v=values, y=labels: expected_calibration_error(v, y, 15),
        }
        others = {name: _timed(measure)[1] for name, measure in measures.items()}
        solver: dict[str, Any] = {}
        if size <= SOLVER_SIZE:
            product, seconds = _timed(lambda v=values, y=labels: solved(v, (y - v) / len(v)), 1)
            solver = {
                "smCE by HiGHS, s": seconds,
                "difference": abs(product - smooth),
                "pGap off by": shortfall(values, labels),
            }
        rows.append(
            {
                "predictions": f"{size:,}",
                "smCE, s": _seconds(smooth_seconds),
                "by HiGHS, s": _seconds(solver.get("smCE by HiGHS, s")),
                "difference": _small(solver.get("difference")),
                "pGap, s": _seconds(gap_seconds),
                "off by at most": _small(solver.get("pGap off by")),
                **{f"{name}, s": _seconds(seconds) for name, seconds in others.items()},
            }
        )
        details[f"{size}"] = {"smCE": smooth_seconds, "pGap": gap_seconds, **others, **solver}
    note = (
        f"Distinct predictions of a model whose logits are 1.5 times too large, medians of {RUNS} "
        "runs, one thread, compiled before. smCE: smooth calibration error, as a linear program by "
        "HiGHS too. pGap: post-processing gap; off by at most what HiGHS finds above it on the "
        "tangent of the gain at its solution. Lower distance: of more than 1,000 distinct "
        "predictions, rounded to 1/1000 first."
    )
    report(
        "calibration",
        "Calibration, measured exactly",
        rows,
        note=note,
        details={"seconds": details},
    )


def drawn(size: int) -> tuple[Floats, Floats]:
    """Logits and labels of an overconfident model."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size)
    return 1.5 * logits, (rng.random(size) < expit(logits)).astype(np.float64)


def solved(values: Floats, surplus: Floats) -> float:
    """The largest Σ cᵢ w(vᵢ) over 1-Lipschitz w with |w| ≤ 1, by HiGHS."""
    order = np.argsort(values)
    n = len(order)
    steps = sparse.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    gaps = np.diff(values[order])
    found = linprog(
        -surplus[order],
        A_ub=sparse.vstack([steps, -steps]).tocsr(),
        b_ub=np.concatenate([gaps, gaps]),
        bounds=(-1, 1),
        method="highs",
        options=_TIGHT,
    )
    return -float(found.fun)


def shortfall(values: Floats, labels: Floats) -> float:
    """A bound on what another change of the predictions gains above the post-processing gap."""
    repaired = LipschitzIsotonic.fit(values, labels).apply(values)
    slope = 2 * (labels - repaired) / len(values)
    return solved(values, slope) - float(slope @ (repaired - values))


def _timed(call: Callable[[], Any], runs: int | None = None) -> tuple[Any, float]:
    seconds, found = [], None
    for _ in range(runs or RUNS):
        started = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - started)
    return found, statistics.median(seconds)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _small(value: float | None) -> str:
    return "" if value is None else f"{max(value, 0):.0e}"
