"""Task arithmetic in one pass over stored values."""

from __future__ import annotations

from typing import Any

import numpy as np

from alliage.merging.kernels import Seen
from alliage.merging.kernels.floats import NOT_FINITE, TILE, compiled, narrow, widen
from alliage.merging.kernels.magnitudes import Stored


def merge(base: Stored, models: Stored, out: Stored, **arguments: Any) -> Seen:
    """Write base + task_arithmetic(models − base) for a block."""
    weights = np.asarray(arguments["weight"], np.float32)
    top = _task_arithmetic(base, models, weights, np.float32(arguments["scale"]), out)
    return Seen(finite=bool(top < NOT_FINITE))


@compiled
def _task_arithmetic(base: Any, models: Any, weights: Any, scale: Any, out: Any) -> Any:
    origin_bits = np.empty(TILE, np.uint32)
    origin = origin_bits.view(np.float32)
    bits = np.empty(TILE, np.uint32)
    values = bits.view(np.float32)
    total_bits = np.empty(TILE, np.uint32)
    total = total_bits.view(np.float32)
    top = np.uint32(0)
    for first in range(0, len(out), TILE):
        size = min(TILE, len(out) - first)
        widen(base[first : first + size], origin_bits)
        widen(models[0, first : first + size], total_bits)
        for i in range(size):
            total[i] = (total[i] - origin[i]) * weights[0]
        for k in range(1, len(weights)):
            widen(models[k, first : first + size], bits)
            for i in range(size):
                total[i] += (values[i] - origin[i]) * weights[k]
        for i in range(size):
            total[i] = origin[i] + total[i] * scale
        top = max(top, narrow(total_bits[:size], out[first : first + size]))
    return top
