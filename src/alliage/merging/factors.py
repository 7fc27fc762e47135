"""Merging LoRA adapters by their factors, module by module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alliage.checkpoints import dtypes
from alliage.checkpoints.writer import TensorWriter, plan_layout
from alliage.errors import AlliageError, Problem
from alliage.merging.plan import Plan
from alliage.vectors import LowRankVector


def plan_factors(made: Plan) -> list[Problem]:
    """Lay out an adapter like the given ones; what keeps their factors from being averaged."""
    adapters = [vector for vector in made.vectors if isinstance(vector, LowRankVector)]
    problems = [
        Problem(
            vector.name,
            f"is no LoRA adapter; {made.method.name} works on LoRA factors.",
            "Choose a method with unit block: see `alliage methods`.",
        )
        for vector in made.vectors
        if not isinstance(vector, LowRankVector)
    ]
    if problems:
        return problems
    if made.recipe.varies():
        return [Problem("parameters", f"{made.method.name} takes one value for all tensors.")]
    first = adapters[0]
    for vector in adapters:
        if vector.heads:
            made.left_apart[vector.name] = vector.heads
        if vector.saved_whole:
            problems.append(
                Problem(
                    vector.name,
                    f"saved {', '.join(vector.saved_whole)} whole beside its factors.",
                    "Choose a method with unit block.",
                )
            )
        problems += _misfits(first, vector)
    wanted = dtypes.code_of(made.recipe.dtype) if made.recipe.dtype else None
    made.layout = plan_layout(
        (
            (spec.name, wanted or spec.dtype, spec.shape)
            for module in first.modules
            for spec in first.stored(module)
        ),
        stem="adapter_model",
    )
    return problems


def merge_factors(
    plan: Plan, writer: TensorWriter, notify: Callable[[str, int, int], None]
) -> None:
    """Write the merged adapter's factors.

    Raises:
        AlliageError: NaN or infinity in a factor; all of them.
    """
    import torch

    adapters = [vector for vector in plan.vectors if isinstance(vector, LowRankVector)]
    arguments = {
        name: torch.tensor(value) if plan.method.parameters[name].per_model else value
        for name, value in plan.arguments.items()
    }
    problems: list[Problem] = []
    for done, module in enumerate(adapters[0].modules, start=1):
        factors = [vector.factors(module) for vector in adapters]
        for vector, found in zip(adapters, factors, strict=True):
            problems += [
                Problem(f"{spec.file}: {spec.name}", "holds NaN or infinity.")
                for spec, tensor in zip(vector.stored(module), found[:2], strict=True)
                if not tensor.isfinite().all()
            ]
        merged = plan.method.function(
            torch.stack([f.B for f in factors]), torch.stack([f.A for f in factors]), **arguments
        )
        for spec, tensor in zip(adapters[0].stored(module), merged, strict=True):
            code = dtypes.code_of(plan.recipe.dtype) if plan.recipe.dtype else spec.dtype
            stored = tensor.to(dtypes.torch_dtype(code or spec.dtype)).contiguous()
            writer.write(spec.name, 0, stored.view(torch.uint8).numpy().data.cast("B"))
        notify("merging", done, len(adapters[0].modules))
    if problems:
        raise AlliageError(problems)


def _misfits(first: LowRankVector, vector: LowRankVector) -> Sequence[Problem]:
    missing = set(first.modules) ^ set(vector.modules)
    if missing:
        return [
            Problem(
                f"{vector.name}: {module}",
                f"is adapted by only one of {first.name} and {vector.name}.",
                "Averaged factors need adapters of the same modules.",
            )
            for module in sorted(missing)
        ]
    return [
        Problem(
            f"{vector.name}: {module}",
            f"has rank {vector.rank(module)} and scale {vector.scale(module):g}, {first.name} has "
            f"rank {first.rank(module)} and scale {first.scale(module):g}.",
            "Averaged factors need one rank and one scale.",
        )
        for module in first.modules
        if vector.rank(module) != first.rank(module) or vector.scale(module) != first.scale(module)
    ]
