"""Merging (IA)3 adapters in the space of their scales: l = 1 + the merged lᵢ − 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alliage.checkpoints import dtypes
from alliage.checkpoints.writer import TensorWriter
from alliage.errors import AlliageError, Problem
from alliage.merging.engine.passes import OnEvent
from alliage.merging.engine.returned import merged_tensor
from alliage.merging.engine.values import draws
from alliage.merging.planning.adapter_names import merged_settings
from alliage.merging.planning.merged import MergedScales
from alliage.merging.planning.plan import Plan
from alliage.merging.planning.scales import groups, scalings_of
from alliage.vectors import ScalingVector

if TYPE_CHECKING:
    from torch import Tensor


def merge_scales(plan: Plan, writer: TensorWriter, notify: OnEvent) -> None:
    """Write the merged adapter's scales.

    A method that works on differences gets lᵢ − 1, zero where an adapter leaves a module as it is;
    one that works on weights gets lᵢ.

    Raises:
        AlliageError: NaN or infinity in the scales or in the result; all of them.
    """
    import torch

    from alliage.threads import one_torch_thread

    problems = [
        Problem(f"{spec.file}: {spec.name}", "holds NaN or infinity.")
        for vector in scalings_of(plan)
        for module in vector.modules
        if not vector.scales(module).isfinite().all()
        for spec in [vector.source(f"{module}.weight")]
    ]
    if problems:
        raise AlliageError(problems)
    done = 0
    with one_torch_thread():
        for group in groups(plan):
            sizes = [scales.numel for scales in group]
            parts = torch.split(_merged(plan, group), sizes)
            for scales, merged in zip(group, parts, strict=True):
                stored = merged.to(dtypes.torch_dtype(scales.dtype)).contiguous()
                if not stored.isfinite().all():
                    what = f"some merged values are no finite {scales.dtype}."
                    problems.append(Problem(f"output: {scales.stored}", what))
                writer.write(scales.stored, 0, stored.view(torch.uint8).numpy().data.cast("B"))
                done += 1
                notify("merging", done, len(plan.scales))
    if problems:
        raise AlliageError(problems)


def scaling_settings(plan: Plan) -> dict[str, Any]:
    """adapter_config.json for the merged scales."""
    assert plan.base is not None
    over_inputs = sorted(scales.in_memory for scales in plan.scales if scales.over_inputs)
    choice = {
        "exclude_modules": None,
        "target_modules": sorted(scales.in_memory for scales in plan.scales),
        "feedforward_modules": over_inputs,
    }
    return merged_settings(scalings_of(plan), plan.base.location, choice)


def _merged(plan: Plan, group: list[MergedScales]) -> Tensor:
    """The scales of some modules, one after the other."""
    import torch

    method, arguments = plan.method, dict(group[0].arguments)
    adapters = scalings_of(plan)
    tensors = torch.stack(
        [torch.cat([_scales(vector, scales) for scales in group]) for vector in adapters]
    )
    if method.random:
        seed, models = arguments["seed"], len(adapters)
        parts = [draws(seed, f"{s.name}.ia3_l", models, 0, s.numel) for s in group]
        arguments["uniform"] = torch.cat(parts, dim=1)
    origin = 1.0 if method.space == "delta" else 0.0
    merged = method.function(tensors - origin, **arguments)
    return merged_tensor(merged, method, group[0].name, tensors.shape[1:]) + origin


def _scales(vector: ScalingVector, scales: MergedScales) -> Tensor:
    import torch

    if scales.name in vector.modules:
        return vector.scales(scales.name)
    return torch.ones(scales.numel)
