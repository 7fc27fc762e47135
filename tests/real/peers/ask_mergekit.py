"""mergekit's merge methods on single tensors."""

from __future__ import annotations

from typing import Any

import torch
from answering import answer
from mergekit.merge_methods import merge_tensors


def merge(
    models: torch.Tensor,
    base: torch.Tensor | None = None,
    *,
    method: str,
    dtype: str | None = None,
    out_dtype: str | None = None,
    seed: int = 0,
    **parameters: Any,
) -> torch.Tensor:
    """One of its methods on models [n, ...], with the base [...] first where there is one."""
    torch.manual_seed(seed)
    return merge_tensors(
        [*models] if base is None else [base, *models],
        method,
        base_index=None if base is None else 0,
        parameters=parameters,
        dtype=dtype and getattr(torch, dtype),
        out_dtype=out_dtype and getattr(torch, out_dtype),
    )


if __name__ == "__main__":
    answer({"merge": merge})
