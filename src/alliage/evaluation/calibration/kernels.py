"""The two exact solvers over a line of points, compiled (numba) and cached on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function on first use; each process does where no folder can be written."""
    made: _Function = njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):  # "cannot cache function: no locator available"
        made.enable_caching()  # type: ignore[attr-defined]
    return made


@compiled
def _push(heap: Any, size: Any, item: Any) -> Any:
    """Add to a binary heap, least first; its new size."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= item:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = item
    return size + 1


@compiled
def _pop(heap: Any, size: Any) -> Any:
    """Remove the least item of a binary heap; its new size."""
    size -= 1
    item = heap[size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if item <= heap[child]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = item
    return size


@compiled
def transport(ranks: Any, ordered: Any, gaps: Any) -> Any:
    """The largest Σ cᵢwᵢ over |wᵢ| ≤ 1, |wᵢ₊₁ − wᵢ| ≤ dᵢ, in O(n log n) whatever the input.

    By duality the least Σ dᵢ|Sᵢ − hᵢ| + Σ |hᵢ − hᵢ₋₁| with h₀ = 0 and hₙ = Sₙ, where S are the
    prefix sums of c: surplus is carried along the line at its length, or given up at 1 for each
    unit. The least cost as a function of hᵢ is convex and piecewise linear with slopes from −1 to
    1, its breakpoints among S: each step inserts one with a jump of 2dᵢ and takes dᵢ off either
    end (total variation on a path, arXiv:1502.07770). Two heaps hold the ends.

    Args:
        ranks: [n + 1] int64, of 0 = S₀, S₁, …, Sₙ in increasing order.
        ordered: [n + 1], these sums in increasing order.
        gaps: [n − 1], dᵢ in [0, 2].
    """
    n = len(ranks) - 1
    jumps = np.zeros(n + 1)
    low, high = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    lows = _push(low, 0, ranks[0])
    highs = _push(high, 0, -ranks[0])
    jumps[ranks[0]] = 2.0
    cost = 0.0  # of h → −∞, with the line h → −h taken away
    for i in range(1, n):
        gap, own = gaps[i - 1], ranks[i]
        if gap == 0.0:
            continue
        lows = _push(low, lows, own)
        highs = _push(high, highs, -own)
        jumps[own] = 2 * gap
        left = gap
        while left > 0.0:
            least = low[0]
            taken = min(jumps[least], left)
            cost += taken * (ordered[own] - ordered[least])
            jumps[least] -= taken
            left -= taken
            if jumps[least] == 0.0:
                lows = _pop(low, lows)
        left = gap
        while left > 0.0:
            greatest = -high[0]
            taken = min(jumps[greatest], left)
            jumps[greatest] -= taken
            left -= taken
            if jumps[greatest] == 0.0:
                highs = _pop(high, highs)
    end = ordered[ranks[n]]
    cost -= end
    for i in range(n + 1):
        if ordered[i] < end:
            cost += jumps[i] * (end - ordered[i])
    return max(cost, 0.0)


@compiled
def lipschitz_fit(curvatures: Any, slopes: Any, gaps: Any, bound: Any) -> Any:
    """The η [n] of least Σ ½aᵢηᵢ² − bᵢηᵢ with |ηᵢ| ≤ bound and |ηᵢ₊₁ − ηᵢ| ≤ dᵢ.

    The derivative of the least cost as a function of ηᵢ is a rising polyline from −bound to bound.
    Each step adds aη − b to it, and moves its parts below and above zero away from each other by d.
    Two stacks hold these parts, the vertices nearest to zero on top; the upper one is mirrored. A
    step costs as many moves as vertices lie between two crossings of zero: few in practice, but
    some √n where slopes pull to and fro, as labels do that alternate from one prediction to the
    next (never more than log n with balanced trees: Agarwal, Phillips and Sadri, 2010).

    Args:
        curvatures: [n], aᵢ ≥ 0.
        slopes: [n], bᵢ.
        gaps: [n − 1], dᵢ ≥ 0.
        bound: positive.
    """
    n = len(curvatures)
    # Of a stored vertex (x, h), position x + shift and height h + shear·x + lift are meant.
    points = np.zeros((2, 2 * n + 4, 2))
    points[:, 0, 0] = -bound
    first, last = np.zeros(2, np.int64), np.ones(2, np.int64)
    shift, shear, lift = np.zeros(2), np.zeros(2), np.zeros(2)
    zeros = np.empty(n)
    for i in range(n):
        for k in range(2):
            shear[k] += curvatures[i]
            lift[k] += curvatures[i] * shift[k] - (slopes[i] if k == 0 else -slopes[i])
        for k in range(2):
            other = 1 - k
            while last[k] > first[k]:
                x = points[k, last[k] - 1, 0]
                height = points[k, last[k] - 1, 1] + shear[k] * x + lift[k]
                if height <= 0.0:
                    break
                last[k] -= 1
                mirrored = -(x + shift[k]) - shift[other]
                points[other, last[other], 0] = mirrored
                points[other, last[other], 1] = -height - shear[other] * mirrored - lift[other]
                last[other] += 1
        if last[0] == first[0]:
            zero = -bound
        elif last[1] == first[1]:
            zero = bound
        else:
            x, y = points[0, last[0] - 1, 0], points[1, last[1] - 1, 0]
            below = points[0, last[0] - 1, 1] + shear[0] * x + lift[0]
            above = -(points[1, last[1] - 1, 1] + shear[1] * y + lift[1])
            low, high = x + shift[0], -(y + shift[1])
            if above > below:
                zero = low - below * ((high - low) / (above - below))
            else:
                zero = min(max(0.0, low), high)
        zeros[i] = zero
        if i == n - 1:
            break
        for k in range(2):
            shift[k] -= gaps[i]
            x = (zero if k == 0 else -zero) - gaps[i] - shift[k]
            points[k, last[k], 0] = x
            points[k, last[k], 1] = -shear[k] * x - lift[k]
            last[k] += 1
            end = -bound - shift[k]
            while last[k] - first[k] > 1 and points[k, first[k] + 1, 0] <= end:
                first[k] += 1
            x = points[k, first[k], 0]
            if x < end:
                if last[k] - first[k] > 1:
                    share = (end - x) / (points[k, first[k] + 1, 0] - x)
                    rise = points[k, first[k] + 1, 1] - points[k, first[k], 1]
                    points[k, first[k], 1] += share * rise
                else:
                    points[k, first[k], 1] = -shear[k] * end - lift[k]
                points[k, first[k], 0] = end
    for i in range(n - 2, -1, -1):
        zeros[i] = min(max(zeros[i], zeros[i + 1] - gaps[i]), zeros[i + 1] + gaps[i])
    return zeros
