"""MagMax (Marczak et al. 2024): of every parameter the largest change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method
from alliage.merging.signature import Factor, In

if TYPE_CHECKING:
    from torch import Tensor


@method("magmax", unit="block", space="delta", paper="arXiv:2407.06322")
def magmax(deltas: Tensor, *, scale: Annotated[float, In(float("-inf")), Factor()] = 0.5) -> Tensor:
    """Take the entry of largest magnitude: λ τₖ with k = argmaxᵢ |τᵢ|, for each parameter.

    Args:
        deltas: [n, ...], the task vectors; of equal magnitudes the last one is taken.
        scale: λ; 0.5 is the authors' for models that were tuned independently.

    Returns:
        [...], to be added to the base.
    """
    largest = deltas[0]
    for delta in deltas[1:]:
        largest = delta.where(delta.abs() >= largest.abs(), largest)
    return largest * scale
