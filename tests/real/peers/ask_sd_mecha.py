"""sd-mecha's TIES, run by its own merge of a recipe."""

from __future__ import annotations

from typing import Any

import sd_mecha
import torch
from answering import answer


def ties(deltas: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """The merged task vector of deltas [n, ...]."""

    def node(delta: torch.Tensor) -> sd_mecha.RecipeNode:
        return sd_mecha.model({"key": delta}, config="singleton-mecha", merge_space="delta")

    recipe = sd_mecha.ties_sum(*map(node, deltas), **arguments)
    merged = sd_mecha.merge(recipe, output_dtype=torch.float32, strict_merge_space="delta")
    return merged["key"]


if __name__ == "__main__":
    answer({"ties": ties})
