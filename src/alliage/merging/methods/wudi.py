"""WUDI: a merged vector that disturbs no task's inputs (Cheng et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method
from alliage.merging.signature import In
from alliage.merging.spectral import WORK, merged_matrices

if TYPE_CHECKING:
    from torch import Tensor


def _seconds(models: int, rows: int, columns: int, *, steps: int, **_: object) -> float:
    return steps * (1e-4 + 2e-11 * rows * columns * min(columns, 2 * models * rows))


@method(
    "wudi",
    unit="tensor",
    space="delta",
    paper="arXiv:2503.08099",
    departures="Every matrix is optimised, embeddings too, and kernels of convolutions as "
    "[out, rest]; what is a vector, or has one row or column, becomes the mean. The gradient is "
    "its closed form. A task that does not change a matrix has no say in it.",
    oriented=True,
    homogeneous=False,
    work=WORK,
    seconds=_seconds,
)
def wudi(
    deltas: Tensor,
    *,
    steps: Annotated[int, In(0, 10**6)] = 300,
    rate: Annotated[float, In(0, open_low=True)] = 1e-5,
) -> Tensor:
    """Start from the sum and lessen what it differs from each task in the task's own directions.

    Adam minimises Σᵢ ‖(τ − τᵢ)τᵢᵀ‖² / ‖τᵢ‖² from τ = Στᵢ. The gradient is
    2(τG − Σᵢ τᵢGᵢ), with Gᵢ = τᵢᵀτᵢ / ‖τᵢ‖² and G = ΣᵢGᵢ.

    Args:
        deltas: [n, ...], one parameter's task vectors.
        steps: of Adam.
        rate: how far a step takes an element, in units of the weights. 300 steps of 1e-5 take it at
            most 0.003 from the sum: raise it for deltas larger than those of large models.

    Returns:
        [...], to be added to the base.
    """
    return merged_matrices(deltas, lambda matrices: _merge(matrices, steps, rate))


def _merge(deltas: Tensor, steps: int, rate: float) -> Tensor:
    import torch

    start = deltas.sum(dim=0, dtype=torch.float64)
    norms = [float(delta.double().norm()) for delta in deltas]
    some = [(delta.double(), norm) for delta, norm in zip(deltas, norms, strict=True) if norm]
    if not some:
        return start
    # Where there are more inputs than the tasks have outputs, G would be larger than they are, and
    # is not formed. The gradient at the start is summed task by task: zero without rounding where
    # nothing disturbs. Adam would make steps of rounding errors.
    wide = start.shape[1] > len(some) * start.shape[0]
    first = torch.zeros_like(start)
    if wide:
        for task, norm in some:
            first += ((start - task) @ task.mT) @ task / norm**2
        within = torch.cat([task / norm for task, norm in some])
    else:
        within = first.new_zeros(start.shape[1], start.shape[1])
        for task, norm in some:
            gram = task.mT @ task / norm**2
            first += (start - task) @ gram
            within += gram
    del some
    within = within.to(deltas.dtype)
    first = first.to(deltas.dtype)
    moved = torch.zeros_like(first)
    optimiser = torch.optim.Adam([moved], lr=rate)
    for _ in range(steps):
        pulled = (moved @ within.mT) @ within if wide else moved @ within
        moved.grad = pulled.add_(first).mul_(2)
        optimiser.step()
    return start + moved
