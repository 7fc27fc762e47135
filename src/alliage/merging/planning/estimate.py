"""About how long a merge will take on a common machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alliage.merging.planning.plan import MergedTensor, Plan

_BYTES_PER_SECOND = 1e9  # read, hashed or written: a common disk
_KERNEL_SECONDS, _TORCH_SECONDS = 1e-9, 2e-8  # for one element of one model


def estimated_seconds(plan: Plan) -> float:
    """Of a run: elementwise arithmetic, decompositions, reading, hashing and writing."""
    each = _KERNEL_SECONDS if plan.kernel is not None else _TORCH_SECONDS
    computing = each * plan.numel * plan.sources_at_once
    computing += sum(_decomposing_seconds(plan, tensor) for tensor in plan.merged)
    moving = (plan.bytes_to_read + 2 * plan.bytes_to_write) / _BYTES_PER_SECOND
    return computing / plan.workers + moving


def _decomposing_seconds(plan: Plan, tensor: MergedTensor) -> float:
    seconds, shape = plan.method.seconds, tensor.spec.shape
    if seconds is None or len(shape) < 2:
        return 0.0
    return seconds(len(tensor.sources), shape[0], math.prod(shape[1:]), **tensor.arguments)
