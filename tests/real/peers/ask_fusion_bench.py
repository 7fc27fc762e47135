"""FusionBench's TIES, on vectors and as an algorithm of its own settings, and its MagMax."""

from __future__ import annotations

from pathlib import Path

import fusion_bench
import torch
from answering import answer
from fusion_bench.method import BaseAlgorithm, TiesMergingAlgorithm
from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

SETTINGS = Path(fusion_bench.__file__).parents[1] / "fusion_bench_config" / "method"


def ties(deltas: torch.Tensor, *, threshold: float, merge_func: str) -> torch.Tensor:
    """The merged task vector of deltas [n, ...]."""
    merged = ties_merging(deltas.flatten(1), reset_thresh=threshold, merge_func=merge_func)
    return merged.reshape(deltas.shape[1:])


def ties_merging_by_default() -> TiesMergingAlgorithm:
    """The algorithm as its project's settings make it."""
    return instantiate(OmegaConf.load(SETTINGS / "ties_merging.yaml"))


def magmax_by_default(models: torch.Tensor, *, sizes: list[int]) -> torch.Tensor:
    """The merged model, as for `ties_by_default`."""
    return _merged(instantiate(OmegaConf.load(SETTINGS / "magmax" / "magmax.yaml")), models, sizes)


def ties_by_default(models: torch.Tensor, *, sizes: list[int]) -> torch.Tensor:
    """The merged model of models [n, d], the first the base, each of parts with some sizes."""
    return _merged(ties_merging_by_default(), models, sizes)


def _merged(algorithm: BaseAlgorithm, models: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    def module(row: torch.Tensor) -> nn.Module:
        return nn.ParameterList(nn.Parameter(part.clone()) for part in row.split(sizes))

    names = ["_pretrained_", *(f"tuned{number}" for number in range(1, len(models)))]
    pool = {name: module(row) for name, row in zip(names, models, strict=True)}
    return nn.utils.parameters_to_vector(algorithm.run(pool).parameters()).detach()


if __name__ == "__main__":
    answer(
        {
            "ties": ties,
            "ties_by_default": ties_by_default,
            "magmax_by_default": magmax_by_default,
        }
    )
