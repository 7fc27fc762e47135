"""About how long a merge will take on a common machine."""

from __future__ import annotations

import math
from collections.abc import Iterable

_BYTES_PER_SECOND = 1e9  # read, hashed or written: a common disk
_KERNEL_SECONDS, _TORCH_SECONDS = 1e-9, 2e-8  # for one element of one model


def estimated_seconds(
    *, elements: int, compiled: bool, decomposing: Iterable[float], nbytes: int, workers: int
) -> float:
    """Of a run: elementwise arithmetic, decompositions, reading, hashing and writing.

    Args:
        elements: of all models that are merged at once.
        compiled: whether a compiled kernel merges them.
        decomposing: seconds that each tensor's decompositions take one worker.
        nbytes: read, hashed and written.
        workers: threads that compute.
    """
    each = _KERNEL_SECONDS if compiled else _TORCH_SECONDS
    computing = each * elements + math.fsum(decomposing)
    return computing / workers + nbytes / _BYTES_PER_SECOND
