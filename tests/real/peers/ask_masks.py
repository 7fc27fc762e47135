"""FusionBench's EMR-Merging, TALL masks, their consensus, and TIES by signs that are given."""

from __future__ import annotations

import torch
from answering import answer
from fusion_bench.method.emr_merging.utils import EMRModulatedModel, EMRTaskModulator, emr_merge
from fusion_bench.method.tall_mask import utils as tall_mask
from fusion_bench.method.ties_merging.ties_merging_utils import (
    disjoint_merge,
    ties_merging,
    topk_values_mask,
)
from torch import nn


def _parts(deltas: torch.Tensor, sizes: list[int]) -> list[dict[str, torch.Tensor]]:
    """Each model's vector as a state dict of parts."""
    return [{f"p{n}": part for n, part in enumerate(row.split(sizes))} for row in deltas]


def unified(deltas: torch.Tensor, *, sizes: list[int]) -> torch.Tensor:
    """EMR's vector, [d]."""
    merged, _, _ = emr_merge(_parts(deltas, sizes))
    return torch.cat([merged[f"p{n}"] for n in range(len(sizes))])


def masks(deltas: torch.Tensor, *, sizes: list[int]) -> torch.Tensor:
    """EMR's masks, [n, d]."""
    _, found, _ = emr_merge(_parts(deltas, sizes))
    return torch.cat([torch.stack(found[f"p{n}"]) for n in range(len(sizes))], dim=1)


def scales(deltas: torch.Tensor, *, sizes: list[int]) -> torch.Tensor:
    """EMR's scales, [n]."""
    return emr_merge(_parts(deltas, sizes))[2]


def rebuilt(deltas: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """The models [n, d] that EMR's modulators make of the base [d]."""
    merged, found, factors = emr_merge([{"p": row} for row in deltas])
    models = []
    for mask, factor in zip(found["p"], factors, strict=True):
        backbone = nn.Module()
        backbone.p = nn.Parameter(base.clone(), requires_grad=False)
        modulator = EMRTaskModulator({"p": mask}, float(factor))
        modulator.apply(EMRModulatedModel(backbone, {"task": modulator}, merged))
        models.append(backbone.p.detach())
    return torch.stack(models)


def tall_masks(deltas: torch.Tensor, *, strictness: float) -> torch.Tensor:
    """TALL masks [n, d] on a base of zeros."""
    return tall_mask.generate_task_masks(
        deltas, deltas, torch.zeros(deltas.shape[1]), tall_mask_lambda=strictness
    )


def consensus(deltas: torch.Tensor, *, strictness: float, agree: int) -> torch.Tensor:
    """The consensus of TALL masks [d]."""
    found = tall_masks(deltas, strictness=strictness)
    # Its own reads with torch.load what it wrote with np.save, which PyTorch refuses.
    tall_mask.load_tall_mask = lambda *_: {str(n): {"p": row} for n, row in enumerate(found)}
    base = {"p": torch.zeros(deltas.shape[1])}
    return tall_mask.construct_consensus_mask(base, agree, None).bool()


def consensus_of_ties(
    deltas: torch.Tensor, *, percent: float, strictness: float, agree: int
) -> torch.Tensor:
    """What the consensus of TALL masks keeps of TIES' result [d]."""
    merged = ties_merging(deltas, reset_thresh=percent, merge_func="dis-sum")
    base = torch.zeros(deltas.shape[1])
    found = tall_mask.generate_task_masks(
        deltas, deltas, base, tv=merged, tall_mask_lambda=strictness
    )
    return merged * (found.sum(dim=0) >= agree)


def ties_by_signs(deltas: torch.Tensor, signs: torch.Tensor, *, percent: float) -> torch.Tensor:
    """TIES' result [d] where signs take the place of the elected ones."""
    kept, *_ = topk_values_mask(deltas, K=percent)
    return disjoint_merge(kept, "dis-mean", signs)


def ties_without_election(deltas: torch.Tensor, *, percent: float) -> torch.Tensor:
    """The disjoint mean [d] of what is kept, whatever its sign."""
    kept, *_ = topk_values_mask(deltas, K=percent)
    return disjoint_merge(kept, "dis-mean", None)


if __name__ == "__main__":
    answer(
        {
            "unified": unified,
            "masks": masks,
            "scales": scales,
            "rebuilt": rebuilt,
            "tall_masks": tall_masks,
            "consensus": consensus,
            "consensus_of_ties": consensus_of_ties,
            "ties_by_signs": ties_by_signs,
            "ties_without_election": ties_without_election,
        }
    )
