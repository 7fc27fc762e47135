"""RegMean++ (Nguyen et al. 2025): RegMean over the inputs that layers have in the merged model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.methods.regmean import WORK, regmean, seconds
from alliage.merging.registry import method
from alliage.merging.signature import In

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "regmean_plus_plus",
    unit="tensor",
    space="weight",
    paper="arXiv:2508.03121",
    departures="As for regmean. The inputs come from alliage statistics regmean++, which merges "
    "the layers in their order for them; the merge itself runs no model.",
    statistics="regmean_plus_plus",
    identical=True,
    work=WORK,
    seconds=seconds,
)
def regmean_plus_plus(
    weights: Tensor,
    *,
    grams: Tensor | None,
    alpha: Annotated[float, In(0, 1)] = 0.9,
) -> Tensor:
    """RegMean over the inputs that a layer has where the layers before it are merged already.

    Args:
        weights: [n, d_out, d_in], a linear layer of every model; or [n, ...], anything else.
        grams: [n, d_in, d_in], Gᵢ = E xxᵀ over the data of each model, x having passed the merged
            layers below; None for what is no linear layer, which is averaged.
        alpha: as for regmean; the one that the inputs were collected with.

    Returns:
        [...], the merged weights.
    """
    return regmean(weights, grams=grams, alpha=alpha)
