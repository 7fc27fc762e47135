"""sd-mecha's Model Stock and geometric median, run by its own merge of a recipe."""

from __future__ import annotations

from typing import Any

import sd_mecha
import torch
from answering import answer


def merge(tensors: torch.Tensor, *, method: str, space: str, **arguments: Any) -> torch.Tensor:
    """A method on tensors [n, ...], which are weights or deltas."""

    def node(tensor: torch.Tensor) -> sd_mecha.RecipeNode:
        return sd_mecha.model({"key": tensor}, config="singleton-mecha", merge_space=space)

    recipe = getattr(sd_mecha, method)(*map(node, tensors), **arguments)
    # In float32 the median would end where the sum of distances stands still, far from converged.
    merged = sd_mecha.merge(
        recipe,
        merge_dtype=torch.float64,
        output_dtype=torch.float32,
        strict_merge_space=space,
    )
    return merged["key"]


if __name__ == "__main__":
    answer({"merge": merge})
