"""Weighted average of weights (model soups)."""

from typing import Annotated

from torch import Tensor

from alliage.merging.registry import In, PerModel, PerModelNumber, method, per_model, weighted_sum


@method("average", unit="block", space="weight", paper="arXiv:2203.05482")
def average(
    weights: Tensor, *, weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0
) -> Tensor:
    """Average the weights: Σ wᵢθᵢ / Σ wᵢ.

    Args:
        weights: [n, ...], the models' weights.
        weight: wᵢ, the share of each model; only their ratios count.

    Returns:
        [...], the averaged weights.
    """
    shares = per_model(weight, weights).flatten().double()
    return weighted_sum(weights, (shares / shares.sum()).to(weights.dtype))
