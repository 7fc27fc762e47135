"""NearSwap: take over what another model changed little (alchemonaut 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method
from alliage.merging.signature import In

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "nearswap",
    unit="block",
    space="weight",
    paper="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    departures="The source divides t by |b − a| and guards against differences below 1e-6; written "
    "as a step of at most t there is nothing to divide.",
    models=2,
    homogeneous=False,
    identical=True,
)
def nearswap(weights: Tensor, *, t: Annotated[float, In(0)] = 1e-4) -> Tensor:
    """Move each weight from a towards b, by t at the most: a + max(−t, min(t, b − a)).

    With w = min(1, t / |b − a|) it is (1 − w)·a + w·b: b where the models are near each other.

    Args:
        weights: [2, ...], a and b.
        t: the largest step; at 0 the result is a.

    Returns:
        [...], the weights between.
    """
    a, b = weights[0], weights[1]
    step = b - a
    return b.where(step.abs() <= t, a + step.clamp(-t, t))
