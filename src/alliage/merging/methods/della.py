"""DELLA (Deep et al. 2024): drop entries at random, small ones rather than large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.methods.dare import Rescale, drawn, l1_factor
from alliage.merging.methods.ties import Combine, Vote, elected
from alliage.merging.registry import method, one_each, weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor

_ROWS_AT_ONCE = 2**18  # elements, of which ranks and chances are held
_DEPARTURES = (
    "ε is half of the window's width, and both of its ends are reached; in the paper it is the "
    "whole width. Where K ± ε would leave [0, 1] the window is narrowed around K. rescale l1 and "
    "none and the weights wᵢ are not in the paper. A row makes one output; mergekit's is a row as "
    "it is stored, and so one of GPT-2's inputs."
)


@method(
    "della_linear",
    unit="tensor",
    space="delta",
    paper="arXiv:2406.11617",
    departures="No sign is elected, as della does it and the paper. " + _DEPARTURES,
    oriented=True,
    random=True,
)
def della_linear(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1, open_low=True)] = 0.5,
    epsilon: Annotated[PerModelNumber, PerModel(), In(0, 1)] = 0.15,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    rescale: Rescale = "inverse",
    seed: Annotated[int, In(0)] = 0,
    uniform: Tensor | None = None,
) -> Tensor:
    """Drop entries by their rank of magnitude, rescale what stays, add it up: λ Σ wᵢ mᵢτᵢ / pᵢ.

    In each row of a matrix the chance pᵢ to stay rises linearly with the rank of |τᵢ|, from Kᵢ − εᵢ
    for the smallest entry to Kᵢ + εᵢ for the largest; a row of a tensor with more axes is what
    belongs to one place of its first axis, and a vector is one row.

    Args:
        deltas: [n, ...], the task vectors of one whole tensor.
        weight: wᵢ; a negative one takes a task away.
        density: Kᵢ, the share of entries that stays on average, 1 − p of the paper.
        epsilon: εᵢ, how far chances go from Kᵢ; at most as far as 0 and 1 allow on both sides.
        scale: λ.
        rescale: "inverse": each entry by 1/pᵢ of its own chance, the paper's; "l1": so that the
            tensor's sum of magnitudes stays what it was; "none".
        seed: of the draws.
        uniform: [n, ...], draws from [0, 1); an entry stays where its draw is below its chance.

    Returns:
        [...], to be added to the base.
    """
    return weighted_sum(_pruned(deltas, density, epsilon, rescale, seed, uniform), weight) * scale


@method(
    "della",
    unit="tensor",
    space="delta",
    paper="arXiv:2406.11617",
    departures=_DEPARTURES + " Cancelled votes are positive.",
    oriented=True,
    random=True,
    work=2,
)
def della(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1, open_low=True)] = 0.5,
    epsilon: Annotated[PerModelNumber, PerModel(), In(0, 1)] = 0.15,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    rescale: Rescale = "inverse",
    vote: Vote = "weighted",
    combine: Combine = "mean",
    seed: Annotated[int, In(0)] = 0,
    uniform: Tensor | None = None,
) -> Tensor:
    """Drop entries by their rank of magnitude, elect signs and merge what agrees: the whole DELLA.

    Args:
        deltas: [n, ...], the task vectors of one whole tensor.
        weight: wᵢ, each model's say in vote and mean.
        density: as for della_linear.
        epsilon: as for della_linear.
        scale: λ.
        rescale: as for della_linear.
        vote: as for ties.
        combine: as for ties.
        seed: of the draws.
        uniform: as for della_linear.

    Returns:
        [...], to be added to the base.
    """
    kept = _pruned(deltas, density, epsilon, rescale, seed, uniform)
    return elected(kept, weight=weight, vote=vote, combine=combine, scale=scale)


def _pruned(
    deltas: Tensor,
    density: PerModelNumber,
    epsilon: PerModelNumber,
    rescale: Rescale,
    seed: int,
    uniform: Tensor | None,
) -> Tensor:
    """The task vectors after MagPrune."""
    import torch

    if uniform is None:
        uniform = drawn(deltas, seed)
    pruned = torch.empty_like(deltas, memory_format=torch.contiguous_format)
    rows = deltas.shape[1] if deltas.ndim > 2 else 1
    columns = deltas[0].numel() // max(rows, 1)
    each = max(1, _ROWS_AT_ONCE // max(columns, 1))
    shares, windows = (one_each(value, len(deltas)).tolist() for value in (density, epsilon))
    for number, (share, window) in enumerate(zip(shares, windows, strict=True)):
        matrices = (of[number].reshape(rows, columns) for of in (deltas, uniform, pruned))
        parts = (torch.split(matrix, each) for matrix in matrices)
        for values, draws, out in zip(*parts, strict=True):
            chances = _chances(values, share, window)
            out.copy_(values.where(draws < chances, 0.0))
            if rescale == "inverse":  # what has no chance is zero already
                out.div_(chances.where(chances > 0, 1.0))
        if rescale == "l1":
            before, after = (
                float(of[number].abs().sum(dtype=torch.float64)) for of in (deltas, pruned)
            )
            pruned[number] *= l1_factor(before, after)
    return pruned


def _chances(rows: Tensor, share: float, window: float) -> Tensor:
    """Each entry's chance to stay, by its rank in its row; of equal ones the first ranks lower."""
    import torch

    columns = rows.shape[1]
    width = min(window, share, 1 - share)
    steps = torch.linspace(-1, 1, columns, dtype=torch.float64) if columns > 1 else torch.zeros(1)
    order = rows.abs().argsort(dim=1, stable=True)
    ladder = (share + width * steps).to(rows.dtype).to(rows.device)
    return torch.empty_like(rows).scatter_(1, order, ladder.expand_as(rows))
