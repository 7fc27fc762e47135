"""The Karcher mean of directions (Wang et al. 2026)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from alliage.merging.products import Products, Table, whole
from alliage.merging.registry import method, one_each, weighted_sum
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "karcher",
    unit="block",
    space="weight",
    paper="arXiv:2603.04972",
    departures="The mean is computed in coordinates of the models, in float64. A direction "
    "opposite to the mean, to which no shortest way is singled out, pulls no way.",
    first_pass=Products,
    identical=True,
)
def karcher(
    weights: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(shares=True), In(0)] = 1.0,
    iterations: Annotated[int, In(0, 10**6)] = 10,
    tolerance: Annotated[float, In(0)] = 1e-5,
    products: Table | None = None,
) -> Tensor:
    """Take the direction nearest to all models' by squared angles, and their mean length.

    For each tensor, from the mean of the directions uᵢ = θᵢ/‖θᵢ‖: u ← exp_u(Σ wᵢ log_u uᵢ), until
    that step is shorter than the tolerance. The result is u·Σ wᵢ‖θᵢ‖, where the wᵢ sum to one.

    Args:
        weights: [n, ...], the models' weights, whole unless `products` is given.
        weight: wᵢ, each model's share.
        iterations: at the most.
        tolerance: of the step, an angle in radians, and of what counts as zero.
        products: [n, n], ⟨θᵢ, θⱼ⟩ of the whole tensors, for a block of them.

    Returns:
        [...], the merged weights.
    """
    import torch

    table = whole(Products, weights) if products is None else products
    inner = torch.tensor(table, dtype=torch.float64)
    shares = one_each(weight, len(weights))
    norms = inner.diagonal().sqrt()
    length = float(shares @ norms / shares.sum())
    valid = norms > tolerance
    if not (shares * valid).any():
        return weighted_sum(weights, shares / shares.sum())
    inverse = (1 / norms).where(valid, 0.0)
    shares = shares.where(valid, 0.0)
    cosines = inner * inverse[:, None] * inverse
    direction = _mean(shares / shares.sum(), cosines, iterations, tolerance)
    return weighted_sum(weights, direction * inverse * length)


def _mean(shares: Tensor, cosines: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Of unit vectors with these cosines: coordinates of a unit vector in them."""

    def length(vector: Tensor) -> float:
        return float((vector @ cosines @ vector).clamp(min=0).sqrt())

    if length(shares) < tolerance:  # they cancel: begin at the first one that counts
        mean = shares.new_zeros(len(shares))
        mean[int(shares.argmax())] = 1.0
    else:
        mean = shares / length(shares)
    for _ in range(iterations):
        nearness = (cosines @ mean).clamp(-1, 1)
        angles = nearness.acos()
        sines = angles.sin()
        pull = (shares * angles / sines).where(sines > tolerance, 0.0)
        step = pull - (pull @ nearness) * mean
        angle = length(step)
        if angle < tolerance:
            break
        mean = mean * math.cos(angle) + step * (math.sin(angle) / angle)
        mean = mean / length(mean)
    return mean
