"""The weighted average in one pass over stored values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from alliage.merging.kernels import Seen
from alliage.merging.kernels.floats import NOT_FINITE, TILE, compiled, narrow, widen
from alliage.merging.kernels.magnitudes import Stored


def merge(base: Stored, models: Stored, out: Stored, **arguments: Any) -> Seen:  # noqa: ARG001
    """Write average(models) for a block."""
    shares = np.asarray(arguments["weight"], np.float64)
    if arguments["normalize"]:
        shares = shares / math.fsum(shares)
    top = _average(models, shares.astype(np.float32), out)
    return Seen(finite=bool(top < NOT_FINITE))


@compiled
def _average(models: Any, shares: Any, out: Any) -> Any:
    bits = np.empty(TILE, np.uint32)
    values = bits.view(np.float32)
    total_bits = np.empty(TILE, np.uint32)
    total = total_bits.view(np.float32)
    top = np.uint32(0)
    for first in range(0, len(out), TILE):
        size = min(TILE, len(out) - first)
        widen(models[0, first : first + size], total_bits)
        for i in range(size):
            total[i] *= shares[0]
        for k in range(1, len(shares)):
            widen(models[k, first : first + size], bits)
            for i in range(size):
                total[i] += values[i] * shares[k]
        top = max(top, narrow(total_bits[:size], out[first : first + size]))
    return top
