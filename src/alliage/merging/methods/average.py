"""Weighted average of weights (model soups)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method, one_each, weighted_sum
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "average",
    unit="block",
    space="weight",
    paper="arXiv:2203.05482",
    departures="The paper's shares are equal or chosen greedily; here they are given.",
    identical=True,
)
def average(
    weights: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    normalize: bool = True,
) -> Tensor:
    """Average the weights: Σ wᵢθᵢ / Σ wᵢ.

    Args:
        weights: [n, ...], the models' weights.
        weight: wᵢ, the share of each model; a negative one moves away from it.
        normalize: divide by Σ wᵢ, so that only the shares' ratios count.

    Returns:
        [...], the averaged weights.
    """
    shares = one_each(weight, len(weights))
    if normalize:
        shares = shares / math.fsum(shares.tolist())
    return weighted_sum(weights, shares.to(weights.dtype))
