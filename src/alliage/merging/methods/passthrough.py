"""One model's weights as they are: for stacks of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method, weighted_sum
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "passthrough",
    unit="block",
    space="weight",
    paper="arXiv:2312.15166",
    models=1,
    identical=True,
)
def passthrough(
    weights: Tensor, *, scale: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0
) -> Tensor:
    """Take the one model's weights, times a scale; with slices, stack layers of several models.

    Args:
        weights: [1, ...], the model's weights.
        scale: what they are multiplied with.

    Returns:
        [...], the scaled weights.
    """
    return weighted_sum(weights, scale)
