"""Task arithmetic (Ilharco et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method, weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor


@method("task_arithmetic", unit="block", space="delta", paper="arXiv:2212.04089")
def task_arithmetic(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    scale: Annotated[float, In(float("-inf")), Factor()] = 0.4,
) -> Tensor:
    """Add the task vectors: λ Σ wᵢτᵢ.

    Args:
        deltas: [n, ...], the task vectors.
        weight: wᵢ; a negative one takes a task away.
        scale: λ; 0.4 is the recipe for merging without a validation set (arXiv:2306.01708). Over
            the depth, as in scale: [0.2, 0.8], it is LiNeS (arXiv:2410.17146).

    Returns:
        [...], to be added to the base.
    """
    return weighted_sum(deltas, weight) * scale
