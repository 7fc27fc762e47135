"""The first pass of trimming: count the magnitudes of task vectors around a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alliage.merging.kernels.floats import MAGNITUDE, NOT_FINITE, TILE, compiled, widen
from alliage.merging.thresholds import TrimThresholds

Stored = NDArray[Any]


def sample(reduction: TrimThresholds, base: Stored, models: Stored) -> bool:
    """Show a first pass some slices, [m] and [n, m]; whether all their values are finite."""
    patterns = np.empty(models.shape, np.uint32)
    for row, model in zip(patterns, models, strict=True):
        _patterns(base, model, row)
    reduction.sample_patterns(patterns)
    return bool(patterns.max(initial=0) < NOT_FINITE)


def measure(
    reduction: TrimThresholds,
    base: Stored,
    models: Stored,
    place: int,
    scratch: NDArray[np.uint32],
) -> bool:
    """Show a first pass a block; whether all its values are finite. `scratch` has [m] or more."""
    reduction.place_brackets()
    if reduction.counting:
        pairs = zip(models, reduction.searches, strict=True)
        equals = [_count_equal(base, model, np.uint32(search.low)) for model, search in pairs]
        reduction.add_equals(place, equals)
        return True
    finite = True
    for model, search in zip(models, reduction.searches, strict=True):
        if search.found and reduction.passes:  # looked at for what is not finite before
            continue
        low, middle = np.uint32(search.low), np.uint32(search.middle)
        span = np.uint32(0 if search.found else search.high - search.low)
        below, less, same, count, top = _collect(base, model, low, span, middle, scratch)
        finite &= bool(top < NOT_FINITE)
        if not search.found:
            search.add(below, less, same, scratch[:count])
    return finite


@compiled
def _patterns(base: Any, model: Any, patterns: Any) -> None:
    """|model − base| as bit patterns."""
    tuned = np.empty(TILE, np.uint32)
    origin = np.empty(TILE, np.uint32)
    for first in range(0, len(base), TILE):
        size = min(TILE, len(base) - first)
        _difference(
            base[first : first + size], model[first : first + size], origin[:size], tuned[:size]
        )
        found = patterns[first : first + size]
        for i in range(size):
            found[i] = tuned[i]


@compiled
def _count_equal(base: Any, model: Any, pattern: Any) -> Any:
    """How many entries have a magnitude of this pattern."""
    tuned = np.empty(TILE, np.uint32)
    origin = np.empty(TILE, np.uint32)
    total: Any = 0
    for first in range(0, len(base), TILE):
        size = min(TILE, len(base) - first)
        _difference(
            base[first : first + size], model[first : first + size], origin[:size], tuned[:size]
        )
        equal = np.uint32(0)
        for i in range(size):
            equal += np.uint32(1) if tuned[i] == pattern else np.uint32(0)
        total += equal
    return total


@compiled
def _collect(base: Any, model: Any, low: Any, span: Any, middle: Any, inside: Any) -> Any:
    """How many patterns are below `low`, below `middle`, `middle`, else in [low, low + span).

    The last kind is written to `inside`. And the largest pattern.
    """
    tuned = np.empty(TILE, np.uint32)
    origin = np.empty(TILE, np.uint32)
    origins, values = origin.view(np.float32), tuned.view(np.float32)
    marks = np.zeros(TILE, np.uint8)
    eights = marks.view(np.uint64)
    below: Any = 0
    less: Any = 0
    same: Any = 0
    count, top = 0, np.uint32(0)
    for first in range(0, len(base), TILE):
        size = min(TILE, len(base) - first)
        widen(base[first : first + size], origin)
        widen(model[first : first + size], tuned)
        for i in range(size):
            values[i] -= origins[i]
        under, smaller, equal = np.uint32(0), np.uint32(0), np.uint32(0)
        for i in range(size):
            pattern = tuned[i] & MAGNITUDE
            tuned[i] = pattern
            under += np.uint32(1) if pattern < low else np.uint32(0)
            smaller += np.uint32(1) if pattern < middle else np.uint32(0)
            equal += np.uint32(1) if pattern == middle else np.uint32(0)
        below += under
        less += smaller
        same += equal
        for i in range(size):
            top = max(top, tuned[i])
        for i in range(size):
            within = (np.uint32(tuned[i] - low) < span) & (tuned[i] != middle)
            marks[i] = np.uint8(1) if within else np.uint8(0)
        for i in range(size, TILE):
            marks[i] = np.uint8(0)
        # Few are inside: look at eight marks at once, and only then at each.
        for eight in range((size + 7) // 8):
            if eights[eight]:
                for i in range(8 * eight, 8 * eight + 8):
                    if marks[i]:
                        inside[count] = tuned[i]
                        count += 1
    return below, less, same, count, top


@compiled
def _difference(base: Any, model: Any, origin: Any, tuned: Any) -> None:
    """|model − base| into `tuned`, as bits."""
    widen(base, origin)
    widen(model, tuned)
    origins, values = origin.view(np.float32), tuned.view(np.float32)
    for i in range(len(origins)):
        values[i] -= origins[i]
    for i in range(len(origins)):
        tuned[i] &= MAGNITUDE
