"""Barycentric interpolation on a hypersphere (Goddard 2024), Multi-SLERP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.products import Products, Table, whole
from alliage.merging.registry import method, one_each, weighted_sum
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor

_SOURCE = "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea"
_DEPARTURES = (
    "The source projects to the tangent space at the weighted mean, averages there and projects "
    "back. The tangent average is zero by construction, so that the mean's direction is the "
    "result: it is computed as such. Directions that cancel, which the source refuses for more "
    "than two tensors, are averaged linearly."
)
_CANCELLED = 1e-8  # a mean of unit vectors that is no direction


@method(
    "multislerp",
    unit="block",
    space="weight",
    paper=_SOURCE,
    departures=_DEPARTURES,
    first_pass=Products,
    identical=True,
)
def multislerp(
    weights: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0,
    normalize: bool = True,
    products: Table | None = None,
) -> Tensor:
    """Average the directions of weights and, apart from them, their lengths.

    (Σ wᵢ‖θᵢ‖) · m / ‖m‖ with m = Σ wᵢ θᵢ/‖θᵢ‖, for each tensor.

    Args:
        weights: [n, ...], the models' weights, whole unless `products` is given.
        weight: wᵢ, each model's share.
        normalize: divide the shares by their sum; otherwise they scale the length.
        products: [n, n], ⟨θᵢ, θⱼ⟩ of the whole tensors, for a block of them.

    Returns:
        [...], the merged weights.
    """
    return _on_sphere(weights, weight, normalize, products)


@method(
    "multislerp_delta",
    unit="block",
    space="delta",
    paper=_SOURCE,
    departures=_DEPARTURES,
    first_pass=Products,
    identical=True,
)
def multislerp_delta(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0,
    normalize: bool = True,
    products: Table | None = None,
) -> Tensor:
    """Average the directions of task vectors and, apart from them, their lengths.

    (Σ wᵢ‖τᵢ‖) · m / ‖m‖ with m = Σ wᵢ τᵢ/‖τᵢ‖, for each tensor.

    Args:
        deltas: [n, ...], the task vectors, whole unless `products` is given.
        weight: wᵢ, each model's share.
        normalize: divide the shares by their sum; otherwise they scale the length.
        products: [n, n], ⟨τᵢ, τⱼ⟩ of the whole tensors, for a block of them.

    Returns:
        [...], to be added to the base.
    """
    return _on_sphere(deltas, weight, normalize, products)


def _on_sphere(
    tensors: Tensor, weight: PerModelNumber, normalize: bool, products: Table | None
) -> Tensor:
    import torch

    table = whole(Products, tensors) if products is None else products
    inner = torch.tensor(table, dtype=torch.float64)
    shares = one_each(weight, len(tensors))
    if normalize:
        shares = shares / shares.sum()
    norms = inner.diagonal().sqrt()
    of_units = (shares / norms).where(norms > 0, 0.0)
    length = float((of_units @ inner @ of_units).clamp(min=0).sqrt())
    if length < _CANCELLED:
        return weighted_sum(tensors, shares)
    return weighted_sum(tensors, of_units * (float(shares @ norms) / length))
