"""Merging LoRA adapters by their factors, module by module."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from alliage.checkpoints import dtypes
from alliage.checkpoints.writer import TensorWriter
from alliage.errors import AlliageError, Problem
from alliage.merging.engine.blocks import for_each
from alliage.merging.engine.passes import OnEvent
from alliage.merging.engine.returned import merged_factors
from alliage.merging.engine.rule_passes import rule_passes
from alliage.merging.planning.adapter_names import merged_settings
from alliage.merging.planning.factors import adapters_of, lay_out_factors
from alliage.merging.planning.merged import MergedModule
from alliage.merging.planning.plan import Plan
from alliage.merging.rules import Apply
from alliage.vectors import LowRankVector

if TYPE_CHECKING:
    from torch import Tensor

Factors = tuple["Tensor", "Tensor"]
Use = Callable[[MergedModule, Factors], None]
Applying = Callable[[MergedModule], Apply]

# Which modules the adapters' settings choose, and how.
_CHOICE = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def with_ranks(plan: Plan, notify: OnEvent) -> Plan:
    """The plan with the result's ranks, where only the values tell them: merged once, unwritten.

    Raises:
        AlliageError: NaN or infinity in a factor; all of them.
    """
    if all(module.certain for module in plan.factors):
        return plan
    ranks: dict[str, int] = {}

    def measure(module: MergedModule, merged: Factors) -> None:
        ranks[module.name] = max(1, merged[0].shape[1])

    _merge(plan, measure, notify)
    measured = replace(plan)
    lay_out_factors(measured, ranks)
    return measured


def merge_factors(plan: Plan, writer: TensorWriter, notify: OnEvent) -> None:
    """Write the merged adapter's factors.

    Raises:
        AlliageError: NaN or infinity in a factor or in the result; all of them.
    """
    import torch

    problems: dict[str, Problem] = {}

    def write(module: MergedModule, merged: Factors) -> None:
        kind = dtypes.torch_dtype(module.dtype)
        missing = module.rank - merged[0].shape[1]  # the rank may be less than it can be
        padded = (
            torch.nn.functional.pad(merged[0], (0, missing)),
            torch.nn.functional.pad(merged[1], (0, 0, 0, missing)),
        )
        for name, tensor in zip((module.B, module.A), padded, strict=True):
            stored = tensor.to(kind).contiguous()
            problems.pop(name, None)  # of a guess that did not hold
            if not stored.isfinite().all():
                what = f"some merged values are no finite {module.dtype}."
                problems[name] = Problem(f"output: {name}", what)
            data = stored.view(torch.uint8).numpy().data.cast("B")
            writer.write(name, 0, data, again=name in written)
            written.add(name)

    written: set[str] = set()
    _merge(plan, write, notify)
    if problems:
        raise AlliageError([problems[name] for name in sorted(problems)])


def lora_settings(plan: Plan) -> dict[str, Any]:
    """adapter_config.json for the merged factors: ΔW = B·A, so α = r in every module."""
    assert plan.base is not None
    names = {module.in_memory: module.rank for module in plan.factors}
    rank, _ = Counter(names.values()).most_common(1)[0]
    # PEFT takes the first pattern that fits the end of a name, so longer ones go first.
    ordered = sorted(names.items(), key=lambda item: (-len(item[0]), item[0]))
    pattern = dict(ordered) if len(set(names.values())) > 1 else {}
    choice = {**dict.fromkeys(_CHOICE), "target_modules": sorted(names)}
    return merged_settings(
        adapters_of(plan), plan.base.location, choice,
        r=rank, lora_alpha=rank, rank_pattern=pattern, alpha_pattern=pattern,
        use_rslora=False, init_lora_weights=True,
    )  # fmt: skip


def _merge(plan: Plan, use: Use, notify: OnEvent) -> None:
    """Merge every module, and use what comes out while it is there."""
    passes = rule_passes(plan)
    if passes is None:
        _walk(plan, None, use, partial(notify, "merging"))
        return
    passes.measure(
        lambda applying: _walk(plan, applying, lambda *_: None, partial(notify, "reading"))
    )
    _walk(plan, passes.merging, use, partial(notify, "merging"))
    if not passes.settle():
        _walk(plan, passes.merging, use, partial(notify, "merging again"))


def _walk(
    plan: Plan, applying: Applying | None, use: Use, notify: Callable[[int, int], None]
) -> None:
    """Call the method for every module, with the `apply` that is made for it."""
    from alliage.threads import one_torch_thread

    adapters = adapters_of(plan)
    problems: list[Problem] = []
    lock = threading.Lock()

    def work(module: MergedModule) -> None:
        pairs = [_factors(vector, module) for vector in adapters]
        found = [
            problem
            for vector, pair in zip(adapters, pairs, strict=True)
            for problem in _unsound(vector, module.name, pair)
        ]
        if found:
            with lock:
                problems.extend(found)
            return
        B, A = zip(*pairs, strict=True)
        given = _arguments(plan, module)
        if applying is not None:
            given["apply"] = applying(module)
        merged = plan.method.function(B, A, **given)
        sizes = B[0].shape[0], A[0].shape[1]
        use(module, merged_factors(merged, plan.method, module.name, sizes, module.rank))

    with one_torch_thread():
        for_each(
            plan.factors,
            work,
            plan.workers,
            lambda done: notify(done, len(plan.factors)),
        )
    if problems:
        raise AlliageError(sorted(problems, key=str))


def _factors(vector: LowRankVector, module: MergedModule) -> Factors:
    """B and A, float32, with the root of the scale in each; of rank 0 where ΔW is zero."""
    import torch

    if module.name not in vector.modules:
        (d_out, *_), (_, *inner) = module.shapes
        return torch.zeros(d_out, 0), torch.zeros(0, math.prod(inner))
    B, A, scale = vector.factors(module.name)
    root = math.sqrt(abs(scale))
    return B * math.copysign(root, scale), A * root


def _unsound(vector: LowRankVector, module: str, pair: Factors) -> list[Problem]:
    if module not in vector.modules:
        return []
    return [
        Problem(f"{spec.file}: {spec.name}", "holds NaN or infinity.")
        for spec, tensor in zip(vector.stored(module), pair, strict=True)
        if not tensor.isfinite().all()
    ]


def _arguments(plan: Plan, module: MergedModule) -> dict[str, Any]:
    import torch

    declared = plan.method.parameters
    return {
        name: torch.tensor(value) if declared[name].per_model else value
        for name, value in module.arguments.items()
    }
