"""FusionBench's merges of matrices: what is to be added to the base, or the calibrated sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from answering import answer
from fusion_bench.method.isotropic_merging.iso_utils import iso_c, iso_cts
from fusion_bench.method.singular_value_calibration.utils import (
    subspace_consistency_spectral_calibration_accelerated,
)
from fusion_bench.method.task_singular_vector.utils.TSVM_utils import (
    compute_and_sum_svd_mem_reduction,
)
from fusion_bench.method.wudi import wudi_merging


def of_state_dicts(merge: Callable[..., dict[str, torch.Tensor]]) -> Callable[..., torch.Tensor]:
    """A merge of task vectors as a function of one parameter's, [n, ...]."""

    def function(deltas: torch.Tensor, **arguments: Any) -> torch.Tensor:
        merged = merge([{"key": delta} for delta in deltas], accelerator="cpu", **arguments)
        return merged["key"].detach()

    return function


def svc(deltas: torch.Tensor, *, scale: float, alpha: float) -> torch.Tensor:
    """Task arithmetic, calibrated, on a base of zeros."""
    return subspace_consistency_spectral_calibration_accelerated(
        base_weight=torch.zeros_like(deltas[0]),
        task_weights=[*deltas],
        merged_weight=scale * deltas.sum(dim=0),
        alpha=alpha,
        accelerator=torch.device("cpu"),
    )


if __name__ == "__main__":
    answer(
        {
            "tsv_m": of_state_dicts(compute_and_sum_svd_mem_reduction),
            "iso_c": of_state_dicts(iso_c),
            "iso_cts": of_state_dicts(iso_cts),
            "wudi": of_state_dicts(wudi_merging),
            "svc": svc,
        }
    )
