"""One checkpoint out of several: methods, recipe, plan, engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import cpu_count
from pathlib import Path
from typing import Any

from alliage.merging.engine import RunRecord, run
from alliage.merging.methods.average import average
from alliage.merging.methods.dare import dare_linear, dare_ties
from alliage.merging.methods.factor_average import factor_average
from alliage.merging.methods.passthrough import passthrough
from alliage.merging.methods.slerp import slerp
from alliage.merging.methods.task_arithmetic import task_arithmetic
from alliage.merging.methods.ties import ties
from alliage.merging.plan import Plan
from alliage.merging.planning import plan
from alliage.merging.recipe import MergeRecipe
from alliage.merging.recipe_files import load_recipe, parse_recipe
from alliage.merging.registry import describe, get_method, list_methods, method

__all__ = [
    "MergeRecipe",
    "Plan",
    "RunRecord",
    "average",
    "dare_linear",
    "dare_ties",
    "describe",
    "factor_average",
    "get_method",
    "list_methods",
    "load_recipe",
    "merge",
    "method",
    "parse_recipe",
    "passthrough",
    "plan",
    "run",
    "slerp",
    "task_arithmetic",
    "ties",
]


def merge(
    method: str,
    *,
    models: Sequence[str | Path] | Mapping[str | Path, float],
    out: str | Path,
    base: str | Path | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    dialect: str = "paper",
    resume: bool = False,
    **parameters: Any,
) -> RunRecord:
    """Merge models into a new checkpoint.

    Args:
        method: a name from `list_methods()`.
        models: references of the models, or references with their weights.
        out: the new folder.
        base: the models' common ancestor.
        dtype: of the output; the base's own by default.
        threads: workers; all cores by default.
        device: "cpu" or "cuda".
        dialect: whose defaults and conventions are followed.
        resume: go on where an interrupted merge to `out` ended.
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
    made = plan(parse_recipe(content), out=out, threads=threads or cpu_count() or 1, resume=resume)
    return run(made, out, device=device, resume=resume)
