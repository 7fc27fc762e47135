"""WUDI: a merged vector that disturbs no task's inputs (Cheng et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import In, method
from alliage.merging.spectral import WORK, merged_matrices

if TYPE_CHECKING:
    from torch import Tensor

_RATE = 1e-5  # of Adam, the paper's


@method(
    "wudi",
    unit="tensor",
    space="delta",
    paper="arXiv:2503.08099",
    departures="Every matrix is optimised, embeddings too, and kernels of convolutions as "
    "[out, rest]; what is a vector, or has one row or column, becomes the mean. The gradient is "
    "its closed form, in float64. A task that does not change a matrix has no say in it. The "
    "inputs are taken to be the columns as they are stored; GPT-2 stores them as rows.",
    homogeneous=False,
    work=WORK,
)
def wudi(deltas: Tensor, *, steps: Annotated[int, In(0, 10**6)] = 300) -> Tensor:
    """Start from the sum and lessen what it differs from each task in the task's own directions.

    Adam with rate 1e-5 minimises Σᵢ ‖(τ − τᵢ)τᵢᵀ‖² / ‖τᵢ‖² from τ = Στᵢ. The gradient is
    2(τG − H), with G = Σᵢ τᵢᵀτᵢ / ‖τᵢ‖² and H = Σᵢ τᵢτᵢᵀτᵢ / ‖τᵢ‖².

    Args:
        deltas: [n, ...], one parameter's task vectors.
        steps: of Adam.

    Returns:
        [...], to be added to the base.
    """
    return merged_matrices(deltas, lambda matrices: _merge(matrices, steps))


def _merge(deltas: Tensor, steps: int) -> Tensor:
    import torch

    merged = deltas.sum(dim=0, dtype=torch.float64)
    norms = [float(delta.double().norm()) for delta in deltas]
    some = [(delta.double(), norm) for delta, norm in zip(deltas, norms, strict=True) if norm]
    wanted = torch.zeros_like(merged)
    for task, norm in some:
        wanted += (task @ task.mT) @ task / norm**2
    rows = torch.cat([task / norm for task, norm in some]) if some else merged * 0
    del some
    # G is the rows' product; where it would be larger than they are, it is not formed.
    wide = rows.shape[1] > rows.shape[0]
    within = rows if wide else rows.mT @ rows
    del rows
    optimiser = torch.optim.Adam([merged], lr=_RATE)
    for _ in range(steps):
        pulled = (merged @ within.mT) @ within if wide else merged @ within
        merged.grad = pulled.sub_(wanted).mul_(2)
        optimiser.step()
    return merged
