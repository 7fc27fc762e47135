"""Laying out a merge of LoRA adapters by their factors."""

from __future__ import annotations

from collections.abc import Sequence

from alliage.checkpoints import dtypes
from alliage.checkpoints.writer import plan_layout
from alliage.errors import Problem
from alliage.merging.planning.plan import Plan
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
