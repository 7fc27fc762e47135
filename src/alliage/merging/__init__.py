"""One checkpoint out of several: methods, recipe, plan, engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import cpu_count
from pathlib import Path
from typing import Any

from alliage.checkpoints.writer import MAX_SHARD_BYTES
from alliage.merging.engine.distributed import Executor
from alliage.merging.engine.passes import OnEvent
from alliage.merging.engine.run import RunRecord, run
from alliage.merging.methods.arcee_fusion import arcee_fusion
from alliage.merging.methods.average import average
from alliage.merging.methods.breadcrumbs import breadcrumbs, breadcrumbs_ties
from alliage.merging.methods.consensus import consensus, consensus_ties, tall_masks
from alliage.merging.methods.core_space import core_space
from alliage.merging.methods.dare import dare_linear, dare_ties
from alliage.merging.methods.della import della, della_linear
from alliage.merging.methods.emr import emr
from alliage.merging.methods.factor_average import factor_average
from alliage.merging.methods.fisher import fisher
from alliage.merging.methods.flip_signs import flip_signs
from alliage.merging.methods.geometric_median import geometric_median
from alliage.merging.methods.iso_c import iso_c
from alliage.merging.methods.iso_cts import iso_cts
from alliage.merging.methods.karcher import karcher
from alliage.merging.methods.knots import knots
from alliage.merging.methods.lora_concat import lora_concat
from alliage.merging.methods.lora_svd import lora_svd
from alliage.merging.methods.magmax import magmax
from alliage.merging.methods.magnitude_prune import magnitude_prune
from alliage.merging.methods.metagpt import metagpt
from alliage.merging.methods.model_stock import model_stock
from alliage.merging.methods.multislerp import multislerp, multislerp_delta
from alliage.merging.methods.nearswap import nearswap
from alliage.merging.methods.nuslerp import nuslerp, nuslerp_delta
from alliage.merging.methods.passthrough import passthrough
from alliage.merging.methods.pcb import pcb
from alliage.merging.methods.ram import ram, ram_plus
from alliage.merging.methods.regmean import regmean
from alliage.merging.methods.regmean_plus_plus import regmean_plus_plus
from alliage.merging.methods.robust_merge import robust_merge
from alliage.merging.methods.sce import sce
from alliage.merging.methods.slerp import slerp
from alliage.merging.methods.star import star
from alliage.merging.methods.svc import svc
from alliage.merging.methods.task_arithmetic import task_arithmetic
from alliage.merging.methods.ties import ties
from alliage.merging.methods.tsv_m import tsv_m
from alliage.merging.methods.wudi import wudi
from alliage.merging.planning.plan import DEFAULT_MEMORY, Plan
from alliage.merging.planning.planner import plan
from alliage.merging.recipe.files import load_recipe, parse_recipe
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import describe, get_method, list_methods, method

__all__ = [
    "MergeRecipe",
    "Plan",
    "RunRecord",
    "arcee_fusion",
    "average",
    "breadcrumbs",
    "breadcrumbs_ties",
    "consensus",
    "consensus_ties",
    "core_space",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "describe",
    "emr",
    "factor_average",
    "fisher",
    "flip_signs",
    "geometric_median",
    "get_method",
    "iso_c",
    "iso_cts",
    "karcher",
    "knots",
    "list_methods",
    "load_recipe",
    "lora_concat",
    "lora_svd",
    "magmax",
    "magnitude_prune",
    "merge",
    "metagpt",
    "method",
    "model_stock",
    "multislerp",
    "multislerp_delta",
    "nearswap",
    "nuslerp",
    "nuslerp_delta",
    "parse_recipe",
    "passthrough",
    "pcb",
    "plan",
    "ram",
    "ram_plus",
    "regmean",
    "regmean_plus_plus",
    "robust_merge",
    "run",
    "sce",
    "slerp",
    "star",
    "svc",
    "tall_masks",
    "task_arithmetic",
    "ties",
    "tsv_m",
    "wudi",
]


def merge(
    method: str,
    *,
    models: Sequence[str | Path] | Mapping[str | Path, float],
    out: str | Path,
    base: str | Path | None = None,
    dtype: str | None = None,
    tokenizer: str | Path | None = None,
    adapter: bool = False,
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY,
    shard_bytes: int = MAX_SHARD_BYTES,
    device: str = "cpu",
    executor: Executor = "local",
    ray_address: str | None = None,
    dialect: str = "paper",
    signs: str | Path | None = None,
    resume: bool = False,
    on_event: OnEvent | None = None,
    **parameters: Any,
) -> RunRecord:
    """Merge models into a new checkpoint.

    Args:
        method: a name from `list_methods()`.
        models: references of the models, or references with their weights.
        out: the new folder, or a URL.
        base: the models' common ancestor.
        dtype: of the output; the base's own by default.
        tokenizer: "base", or the model whose tokenizer the output gets; the base's by default.
        adapter: of (IA)3 adapters, make one again, not a full model.
        threads: workers; all cores by default.
        memory: bytes of anonymous memory that the merge may take.
        shard_bytes: of tensors in one file of the output.
        device: "cpu" or "cuda".
        executor: "local", or "ray" with the cluster's `ray_address`; see `run`.
        ray_address: of that cluster.
        dialect: whose defaults and conventions are followed.
        signs: a file of signs, from `alliage.signs`, that replaces the election of ties.
        resume: go on where an interrupted merge to `out` ended.
        on_event: called with (stage, done, total) as the work goes on.
        parameters: of the method, such as density=0.2.

    Raises:
        UsageError: an unknown method or parameter, or `out` exists.
        AlliageError: the models do not fit together; every misfit.
    """
    entries = (
        [{"model": str(ref), "parameters": {"weight": weight}} for ref, weight in models.items()]
        if isinstance(models, Mapping)
        else [{"model": str(ref)} for ref in models]
    )
    content: dict[str, Any] = {"method": method, "base": base and str(base), "models": entries}
    content |= {"parameters": parameters, "dtype": dtype, "dialect": dialect}
    content |= {"signs": str(signs)} if signs is not None else {}
    content |= {"adapter": True} if adapter else {}
    content |= {"tokenizer": str(tokenizer)} if tokenizer is not None else {}
    made = plan(
        parse_recipe(content), out=out, memory=memory, threads=threads or cpu_count() or 1,
        shard_bytes=shard_bytes, resume=resume,
    )  # fmt: skip
    return run(
        made, out, device=device, executor=executor, ray_address=ray_address, resume=resume,
        on_event=on_event,
    )  # fmt: skip
