"""FusionBench's alignment of updates by one SVD (KnOTS)."""

from __future__ import annotations

import torch
from answering import answer
from fusion_bench.method.knots.knots_utils import subspace_alignment


def basis(deltas: torch.Tensor) -> torch.Tensor:
    """U [d_out, k] of the updates [n, d_out, d_in] side by side."""
    return subspace_alignment(list(deltas))[0]


def aligned(deltas: torch.Tensor) -> torch.Tensor:
    """ΣVᵢ [n, k, d_in] of the updates."""
    _, values, parts = subspace_alignment(list(deltas))
    return torch.stack([values[:, None] * part for part in parts])


if __name__ == "__main__":
    answer({"basis": basis, "aligned": aligned})
