"""Spherical interpolation by shares, whole or by rows (NuSLERP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method, one_each
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor

_SOURCE = "doi:10.1145/325334.325242"
_DEPARTURES = (
    "As for slerp, weights are combined as they are, with the angle between their directions. The "
    "shares, and rows as vectors of their own, are mergekit's NuSLERP."
)
_COLLINEAR = 1e-12  # sin²Ω below which two vectors are interpolated linearly
_ZERO = 1e-7  # a norm that is no direction


@method(
    "nuslerp",
    unit="tensor",
    space="weight",
    paper=_SOURCE,
    departures=_DEPARTURES,
    models=2,
    identical=True,
)
def nuslerp(
    weights: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0,
    flatten: bool = True,
    columns: bool = False,
) -> Tensor:
    """Interpolate two models on the arc: [sin((1−t)Ω)·a + sin(tΩ)·b] / sin Ω, t = w₂/(w₁ + w₂).

    Args:
        weights: [2, ...], a and b.
        weight: w₁ and w₂, the models' shares; equal for tensors of which rules make both zero.
        flatten: whether the whole tensor is one vector.
        columns: where it is not, whether each of its columns is one, along the first dimension;
            otherwise each of its rows is, along the last one.

    Returns:
        [...], the interpolated weights.
    """
    return _interpolated(weights, weight, flatten, columns)


@method(
    "nuslerp_delta",
    unit="tensor",
    space="delta",
    paper=_SOURCE,
    departures=_DEPARTURES,
    models=2,
    identical=True,
)
def nuslerp_delta(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0,
    flatten: bool = True,
    columns: bool = False,
) -> Tensor:
    """Interpolate two task vectors on the arc, as nuslerp does with weights.

    Args:
        deltas: [2, ...], the task vectors.
        weight: w₁ and w₂, the models' shares; equal for tensors of which rules make both zero.
        flatten: whether the whole tensor is one vector.
        columns: where it is not, whether each of its columns is one, along the first dimension;
            otherwise each of its rows is, along the last one.

    Returns:
        [...], to be added to the base.
    """
    return _interpolated(deltas, weight, flatten, columns)


def _interpolated(pair: Tensor, weight: PerModelNumber, flatten: bool, columns: bool) -> Tensor:
    import torch

    shares = one_each(weight, 2)
    t = float(shares[1] / shares.sum()) if shares.any() else 0.5
    if flatten or pair.ndim < 3:
        first, second = pair.reshape(2, -1)
    else:
        first, second = pair.transpose(1, -1) if columns else pair
    sums = [
        (one.double() * other).sum(dim=-1, keepdim=True)
        for one, other in ((first, first), (second, second), (first, second))
    ]
    norms = sums[0].sqrt() * sums[1].sqrt()
    directed = torch.minimum(sums[0], sums[1]) > _ZERO**2
    cosine = (sums[2] / norms).where(directed, 0.0).clamp(-1, 1)
    straight = 1 - cosine.square() <= _COLLINEAR
    angle = cosine.where(~straight, 0.0).acos()
    shares_of = [
        torch.sin(part * angle).div(torch.sin(angle)).where(~straight, part).to(pair.dtype)
        for part in (1 - t, t)
    ]
    merged: Tensor = first * shares_of[0] + second * shares_of[1]
    if columns and not flatten and pair.ndim > 2:
        merged = merged.transpose(0, -1)
    return merged.reshape(pair.shape[1:])
