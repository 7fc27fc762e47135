"""FusionBench's Fisher merging and RegMean, by the functions that its algorithms call."""

from __future__ import annotations

import torch
from answering import answer
from fusion_bench.method.fisher_merging.fisher_merging import merging_with_fisher_weights
from fusion_bench.method.regmean.regmean import merging_with_regmean_weights


def fisher(
    weights: torch.Tensor,
    information: torch.Tensor,
    *,
    shares: list[float],
    normalize: bool,
    floor: float,
    sizes: list[int],
) -> torch.Tensor:
    """The merged model of models [n, d] and their information, of parts with some sizes."""
    parts = [row.split(sizes) for row in weights]
    known = [row.split(sizes) for row in information]
    names = [f"part{number}" for number in range(len(sizes))]
    merged = merging_with_fisher_weights(
        {name: [row[number] for row in parts] for number, name in enumerate(names)},
        [dict(zip(names, row, strict=True)) for row in known],
        torch.tensor(shares),
        normalize_fisher_weight=normalize,
        minimal_fisher_weight=floor,
    )
    return torch.cat([merged[name] for name in names])


def regmean(
    weights: torch.Tensor, grams: torch.Tensor, *, alpha: float, transposed: bool
) -> torch.Tensor:
    """The merged layer of weights [n, d_out, d_in], or [n, d_in, d_out] where transposed."""
    merged = merging_with_regmean_weights(
        {"layer.weight": list(weights)},
        [{"layer": gram} for gram in grams],
        reduce_non_diagonal_ratio=alpha,
        weight_transpose=not transposed,
    )
    return merged["layer.weight"]


if __name__ == "__main__":
    answer({"fisher": fisher, "regmean": regmean})
