"""The geometric median (Weiszfeld 1937), as it makes averages of models robust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np

from alliage.merging.products import Distances, Table, whole
from alliage.merging.registry import Scope, method, one_each, weighted_sum
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_ITERATIONS = 1000  # on a few coordinates: about what merging a block takes
_STEP = 1e-12  # of the shares, below which they stand still
_NEAR = 1e-9  # of the largest distance: where a model is hit, shares would be infinite


@method(
    "geometric_median",
    unit="block",
    space="weight",
    paper="arXiv:1912.13445",
    departures="The paper smooths the distances near zero; here a model that is the median itself "
    "is found by its own condition (Vardi and Zhang 2000). The median is searched in coordinates "
    "of the models, until it stands still.",
    first_pass=Distances,
    identical=True,
)
def geometric_median(
    weights: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(shares=True), In(0)] = 1.0,
    over: Scope = "model",  # noqa: ARG001  the engine's: here everything is one vector
    distances: Table | None = None,
) -> Tensor:
    """Take the weights whose distances to all models have the smallest sum: Σ wᵢ‖θ − θᵢ‖.

    Fewer than half of the models, however far off, do not carry it away. It lies among them,
    Σ aᵢθᵢ with Σ aᵢ = 1, and from their mean on aᵢ ← wᵢ/‖θ − θᵢ‖, divided by their sum.

    Args:
        weights: [n, ...], the models' weights, whole unless `distances` is given.
        weight: wᵢ, how much each model counts.
        over: what is one vector: the model, as in the paper, a module or a tensor.
        distances: [n, n], ‖θᵢ − θⱼ‖² of the whole vectors, for a block of them.

    Returns:
        [...], the merged weights.
    """
    import torch

    apart = np.array(whole(Distances, weights) if distances is None else distances)
    counts = one_each(weight, len(weights)).numpy()
    return weighted_sum(weights, torch.from_numpy(_shares(apart, counts / counts.sum())))


def _shares(apart: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The aᵢ, from squared distances and from counts that sum to one."""
    lengths = np.sqrt(apart)
    least = _NEAR * lengths.max()
    if least == 0:  # all models are one
        return counts
    for model, there in enumerate(lengths):
        pulls = np.where(there > least, counts / np.maximum(there, least), 0.0)
        # ⟨θᵢ − θ, θⱼ − θ⟩ from the three distances
        inner = (apart[model] + apart[model][:, None] - apart) / 2
        here = counts[there <= least].sum()
        if max(0.0, pulls @ inner @ pulls) < (here * (1 - _NEAR)) ** 2:
            return np.where(np.arange(len(counts)) == model, 1.0, 0.0)
    shares = counts
    for _ in range(_ITERATIONS):
        squares = apart @ shares - (shares @ apart @ shares) / 2
        moved = counts / np.sqrt(np.maximum(squares, least**2))
        moved /= moved.sum()
        done = np.abs(moved - shares).max() <= _STEP
        shares = moved
        if done:
            break
    return shares
