"""RegMean (Jin et al. 2023): each linear layer answers as its models do, in least squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method, one_each
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor

# Grams are stored in float32: what is smaller beside the largest may be all rounding.
_LEAST_PIVOT = 1e-6  # squared, of equations scaled to a diagonal of ones
_LEAST_EIGENVALUE = 2.0**-23
WORK = 24  # float32 tensors of the size of a Gram that the equations take, as measured


def seconds(models: int, rows: int, columns: int, **_: object) -> float:
    """About how long the equations of a layer take on one core of a common machine."""
    return 4e-11 * columns**2 * ((models + 1.5) * rows + columns)


@method(
    "regmean",
    unit="tensor",
    space="weight",
    paper="arXiv:2212.09849",
    departures="Gᵢ is a mean over inputs, so that no model counts more for having more data; the "
    "shares wᵢ are not in the paper. Directions that no input has keep the average, where the "
    "paper's inverse does not exist.",
    statistics="regmean",
    identical=True,
    work=WORK,
    seconds=seconds,
)
def regmean(
    weights: Tensor,
    *,
    grams: Tensor | None,
    weight: Annotated[PerModelNumber, PerModel(shares=True), In(0)] = 1.0,
    alpha: Annotated[float, In(0, 1)] = 0.9,
) -> Tensor:
    """Minimise Σ wᵢ E‖(W − Wᵢ)x‖² over each model's inputs: Wᵀ = (Σ wᵢG̃ᵢ)⁻¹ Σ wᵢG̃ᵢWᵢᵀ.

    Args:
        weights: [n, d_out, d_in], a linear layer of every model; or [n, ...], anything else.
        grams: [n, d_in, d_in], Gᵢ = E xxᵀ over the layer's inputs in each model; None for what is
            no linear layer, which is averaged by wᵢ.
        weight: wᵢ, the share of each model.
        alpha: what off-diagonal entries of Gᵢ are multiplied by: G̃ᵢ. The paper takes 0.9, less for
            some models; with 0 each input counts alone, with 1 the equations are those of least
            squares.

    Returns:
        [...], the merged weights.
    """
    import torch

    given = one_each(weight, len(weights))
    shares: list[float] = (given / given.sum()).tolist()
    mean = torch.zeros(weights.shape[1:], dtype=torch.float64, device=weights.device)
    for tensor, share in zip(weights, shares, strict=True):
        mean += tensor.double() * share
    if grams is None:
        return mean.float()
    # Solved for the difference to the average: where nothing is known, it is zero.
    total = torch.zeros(grams.shape[1:], dtype=torch.float64, device=weights.device)
    right = torch.zeros_like(mean.mT)
    for tensor, gram, share in zip(weights, grams, shares, strict=True):
        reduced = gram.double() * (alpha * share)
        reduced.diagonal().copy_(gram.diagonal().double() * share)
        total += reduced
        right += reduced @ (tensor.double() - mean).mT
    return (mean + _solve(total, right).mT).float()


def _solve(left: Tensor, right: Tensor) -> Tensor:
    """The X of left · X = right, [d, d] symmetric, ≥ 0; the smallest where there are several."""
    import torch

    diagonal = left.diagonal()
    dead = diagonal <= 0  # inputs that are always zero: their equations are 0 = 0
    scale = diagonal.where(~dead, 1.0).sqrt()
    scaled = left / scale / scale[:, None]
    scaled.diagonal().masked_fill_(dead, 1.0)
    factor, failed = torch.linalg.cholesky_ex(scaled)
    if not failed and factor.diagonal().square().min() > _LEAST_PIVOT:
        solved: Tensor = torch.cholesky_solve(right / scale[:, None], factor) / scale[:, None]
        return solved
    values, vectors = torch.linalg.eigh(left)
    sound = values > _LEAST_EIGENVALUE * values[-1]
    smallest: Tensor = (vectors[:, sound] / values[sound]) @ (vectors[:, sound].mT @ right)
    return smallest
