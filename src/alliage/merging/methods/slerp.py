"""Spherical linear interpolation (Shoemake 1985) between two models, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from alliage.merging.products import Products
from alliage.merging.registry import method, weighted_sum
from alliage.merging.signature import In

if TYPE_CHECKING:
    from torch import Tensor

_COLLINEAR = 0.9995  # |cosine| beyond which sin Ω is too small to divide by
_ZERO = 1e-8  # a norm that is no direction


class Cosine(Products):
    """The cosine of the angle between two tensors, as a first pass, in float64."""

    def result(self) -> Mapping[str, Any] | None:
        """The {"cosine": float}, the same whoever saw which block."""
        if not self._seen:
            return None
        (one, both), (_, other) = self.table()
        return {"cosine": _cosine(math.sqrt(one), math.sqrt(other), both)}


@method(
    "slerp",
    unit="block",
    space="weight",
    paper="doi:10.1145/325334.325242",
    departures="Weights are no unit vectors: they are combined as they are, with the angle between "
    "their directions, as is usual for models. Nearly parallel tensors are interpolated linearly.",
    first_pass=Cosine,
    models=2,
    identical=True,
)
def slerp(
    weights: Tensor,
    *,
    t: Annotated[float, In(0, 1)] = 0.5,
    cosine: float | None = None,
) -> Tensor:
    """Interpolate on the arc: [sin((1−t)Ω)·a + sin(tΩ)·b] / sin Ω, Ω the angle between a and b.

    Args:
        weights: [2, ...], a and b, whole unless `cosine` is given.
        t: how far from a to b.
        cosine: of Ω over the whole tensor, for a block of it.

    Returns:
        [...], the interpolated weights.
    """
    if cosine is None:
        a, b = weights.flatten(1).double()
        cosine = _cosine(float(a.norm()), float(b.norm()), float(a @ b))
    if abs(cosine) > _COLLINEAR:
        shares = (1 - t, t)
    else:
        angle = math.acos(cosine)
        shares = (
            math.sin((1 - t) * angle) / math.sin(angle),
            math.sin(t * angle) / math.sin(angle),
        )
    return weighted_sum(weights, weights.new_tensor(shares))


def _cosine(one: float, other: float, both: float) -> float:
    """Of two norms and a product; 0, a right angle, where one has no direction."""
    if min(one, other) <= _ZERO:
        return 0.0
    return max(-1.0, min(1.0, both / (one * other)))
