"""The two passes over every parameter that counting makes, fused for the CPU (numba).

Their definitions are `counting.kept_signs` with `SignTally.add`, and `steps.Magnitudes.of`; tests
hold them equal, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alliage.compiling import compiled
from alliage.geometry.interference.steps import AGREEMENTS, STEPS, Magnitudes, agreement_table

_TILE = 1024  # parameters at a time: what is made of them stays in the first-level cache


def tally(
    deltas: NDArray[np.float32], thresholds: NDArray[np.float32], times: NDArray[np.int64]
) -> None:
    """Add how often each pattern of kept signs occurs.

    Args:
        deltas: [n, m].
        thresholds: [shares, n], the smallest magnitudes that models keep.
        times: [shares, 3ⁿ], by `SignTally.add_times`' places; added to.
    """
    _tally(deltas, thresholds, times)


def measure(deltas: NDArray[np.float32], limits: NDArray[np.float32]) -> Magnitudes:
    """Magnitudes of a block [n, m] after each step; trimming keeps what reaches the limits [n]."""
    models = len(deltas)
    counts = np.zeros((models + 1) * len(AGREEMENTS))
    totals, squares = np.zeros((2, len(STEPS), len(counts)))
    _measure(deltas, limits, agreement_table(models), len(AGREEMENTS), counts, totals, squares)
    shape = (models + 1, len(AGREEMENTS))
    return Magnitudes(
        counts.reshape(shape), totals.reshape(-1, *shape), squares.reshape(-1, *shape)
    )


@compiled
def _tally(deltas: Any, thresholds: Any, times: Any) -> None:
    models, numel = deltas.shape
    codes = np.empty(_TILE, np.int32)
    half = np.int32(times.shape[1] // 2)
    for first in range(0, numel, _TILE):
        size = min(_TILE, numel - first)
        for share in range(len(thresholds)):
            for i in range(size):
                codes[i] = 0
            for model in range(models):
                values, limit = deltas[model, first : first + size], thresholds[share, model]
                for i in range(size):
                    value = values[i]
                    up = np.int32(1) if (value > 0) & (value >= limit) else np.int32(0)
                    down = np.int32(1) if (value < 0) & (-value >= limit) else np.int32(0)
                    codes[i] = np.int32(3) * codes[i] + up - down
            for i in range(size):
                times[share, codes[i] + half] += 1


@compiled
def _measure(
    deltas: Any, limits: Any, bins: Any, agreements: Any, counts: Any, totals: Any, squares: Any
) -> None:
    models, numel = deltas.shape
    zero, one, count = np.float32(0), np.float32(1), np.float32(models)
    raw, total = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    raw_agreeing, agreeing = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    raw_number, number = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    keeping = np.empty(_TILE, np.int32)
    up, down = np.empty(_TILE, np.int32), np.empty(_TILE, np.int32)
    sizes = np.empty((6, _TILE), np.float32)
    for first in range(0, numel, _TILE):
        size = min(_TILE, numel - first)
        for i in range(size):
            raw[i] = total[i] = raw_agreeing[i] = agreeing[i] = zero
            raw_number[i] = number[i] = zero
            keeping[i] = up[i] = down[i] = 0
        for model in range(models):
            values, limit = deltas[model, first : first + size], limits[model]
            for i in range(size):
                value = values[i]
                kept = (abs(value) >= limit) & (value != 0)
                raw[i] += value
                total[i] += value if kept else zero
                keeping[i] += np.int32(1) if kept else np.int32(0)
                up[i] += np.int32(1) if value > 0 else np.int32(0)
                down[i] += np.int32(1) if value < 0 else np.int32(0)
        for model in range(models):
            values, limit = deltas[model, first : first + size], limits[model]
            for i in range(size):
                value = values[i]
                along = value if raw[i] >= 0 else -value
                raw_agreeing[i] += along if along > 0 else zero
                raw_number[i] += one if along > 0 else zero
                along = value if total[i] >= 0 else -value
                agrees = (along > 0) & (along >= limit)
                agreeing[i] += along if agrees else zero
                number[i] += one if agrees else zero
        for i in range(size):
            kept_by = np.float32(keeping[i])
            sizes[0, i] = abs(raw[i]) / count
            sizes[1, i] = abs(total[i]) / count
            sizes[2, i] = abs(total[i]) / max(kept_by, one)
            sizes[3, i] = raw_agreeing[i] / max(raw_number[i], one)
            sizes[4, i] = agreeing[i] / count
            sizes[5, i] = agreeing[i] / max(number[i], one)
        for i in range(size):
            place = keeping[i] * agreements + bins[up[i], down[i]]
            counts[place] += 1
            for step in range(6):
                value = np.float64(sizes[step, i])
                totals[step, place] += value
                squares[step, place] += value * value
