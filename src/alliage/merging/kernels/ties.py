"""TIES in one pass over stored values."""

from __future__ import annotations

from typing import Any

import numpy as np

from alliage.merging.kernels import Seen
from alliage.merging.kernels.floats import MAGNITUDE, NOT_FINITE, TILE, compiled, narrow, widen
from alliage.merging.kernels.magnitudes import Stored, measure, sample

__all__ = ["measure", "merge", "sample"]

_VOTES = {"weighted": 0, "sum": 1, "count": 2, "none": 3}
_COMBINE = {"mean": 0, "sum_by_count": 1, "sum": 2, "mean_of_all": 3, "signed_mean": 4}


def merge(base: Stored, models: Stored, out: Stored, **arguments: Any) -> Seen:
    """Write base + ties(models − base) for a block; its count and doubts as `MajoritySign.look`."""
    zero, majority = arguments["zero"], arguments["majority"]
    up = zero == "positive" or (zero == "majority" and majority > 0)
    quota = arguments.get("quota")
    count, cancelled, top = _ties(
        base,
        models,
        np.asarray(arguments["weight"], np.float32),
        np.asarray(arguments["thresholds"], np.float32),
        np.asarray(quota if quota is not None else [-1] * len(models), np.int64),
        _VOTES[arguments["vote"]],
        up,
        zero == "drop",
        _COMBINE[arguments["combine"]],
        np.float32(arguments["scale"]),
        out,
    )
    return Seen(int(count), bool(cancelled) and zero == "majority", bool(top < NOT_FINITE))


@compiled
def _ties(
    base: Any,
    models: Any,
    weights: Any,
    thresholds: Any,
    quota: Any,
    vote: Any,
    up: Any,
    drop: Any,
    combine: Any,
    scale: Any,
    out: Any,
) -> Any:
    n = models.shape[0]
    origin_bits = np.empty(TILE, np.uint32)
    origin = origin_bits.view(np.float32)
    row_bits = np.empty((n, TILE), np.uint32)
    rows = row_bits.view(np.float32)
    votes = np.empty(TILE, np.float32)
    signs = np.empty(TILE, np.int8)
    shares = np.empty(TILE, np.float32)
    total_bits = np.empty(TILE, np.uint32)
    total = total_bits.view(np.float32)
    left = quota.copy()
    balance: Any = 0
    cancelled: Any = False
    top = np.uint32(0)
    zero, one = np.float32(0), np.float32(1)
    for first in range(0, len(base), TILE):
        size = min(TILE, len(base) - first)
        widen(base[first : first + size], origin_bits)
        for i in range(size):
            votes[i] = zero
        for k in range(n):
            row, weight, threshold = rows[k], weights[k], thresholds[k]
            widen(models[k, first : first + size], row_bits[k])
            for i in range(size):
                row[i] -= origin[i]
            # Known without a first pass, which would have looked for NaN; trimming hides it.
            if threshold == 0 or threshold == np.inf:
                for i in range(size):
                    top = max(top, row_bits[k, i] & MAGNITUDE)
            if left[k] >= 0:
                left[k] = _drop_equals(row[:size], threshold, left[k])
            for i in range(size):
                row[i] = row[i] if abs(row[i]) >= threshold else zero
            if vote == 0:
                for i in range(size):
                    votes[i] += row[i] * weight
            elif vote == 1:
                for i in range(size):
                    votes[i] += row[i]
            elif vote == 2:
                for i in range(size):
                    votes[i] += (one if row[i] > 0 else zero) - (one if row[i] < 0 else zero)
        net, zeros = np.int32(0), np.int32(0)
        for i in range(size):
            plus = np.int8(1) if votes[i] > 0 else np.int8(0)
            minus = np.int8(1) if votes[i] < 0 else np.int8(0)
            signs[i] = plus - minus
            net += np.int32(signs[i])
            zeros += np.int32(1) if signs[i] == 0 else np.int32(0)
        balance += net
        if zeros and not cancelled and vote != 3:
            for k in range(n):
                row, any_kept = rows[k], np.int32(0)
                for i in range(size):
                    any_kept += np.int32(1) if signs[i] == 0 and row[i] != 0 else np.int32(0)
                cancelled |= any_kept > 0
        if not drop:
            toward = np.int8(1) if up else np.int8(-1)
            for i in range(size):
                signs[i] = toward if signs[i] == 0 else signs[i]
        for i in range(size):
            total[i] = zero
            shares[i] = zero
        for k in range(n):
            row, weight = rows[k], weights[k]
            share = abs(weight) if combine == 0 or combine == 3 else one
            share = weight if combine == 4 else share
            for i in range(size):
                value = row[i] * weight
                voter = value if vote == 0 else row[i]
                agrees = (signs[i] > 0) & (voter > 0) | (signs[i] < 0) & (voter < 0)
                if vote == 3:
                    agrees = row[i] != 0
                total[i] += value if agrees else zero
                shares[i] += share if agrees or combine == 3 else zero
        if combine != 2:
            for i in range(size):
                total[i] /= shares[i] if shares[i] != 0 else one
        for i in range(size):
            total[i] = origin[i] + total[i] * scale
        top = max(top, narrow(total_bits[:size], out[first : first + size]))
    return balance, cancelled, top


@compiled
def _drop_equals(row: Any, threshold: Any, left: Any) -> Any:
    """Zero the entries equal to the threshold beyond the first `left`; how many are left then."""
    for i in range(len(row)):
        if abs(row[i]) == threshold:
            if left > 0:
                left -= 1
            else:
                row[i] = 0
    return left
