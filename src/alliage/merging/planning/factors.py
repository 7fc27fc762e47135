"""Laying out a merge of LoRA adapters by their factors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from alliage.checkpoints import TensorSpec, dtypes
from alliage.checkpoints.names import layer_count
from alliage.checkpoints.writer import plan_layout
from alliage.errors import Problem
from alliage.merging.planning.adapter_names import output_name, prefixes
from alliage.merging.planning.merged import MergedModule
from alliage.merging.planning.plan import Plan
from alliage.merging.recipe.parameters import depth_of
from alliage.merging.rules import rule_of
from alliage.vectors import LowRankVector


def plan_factors(made: Plan) -> list[Problem]:
    """Lay out an adapter for all modules that the given ones adapt; what keeps it from being."""
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
    adapters = adapters_of(made)
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
    if made.method.rank is None:
        problems += _unequal(made, adapters)
    if problems:
        return problems
    modules = dict.fromkeys(module for vector in adapters for module in vector.modules)
    layers = layer_count(modules)
    owners = {
        module: next(vector for vector in adapters if module in vector.modules)
        for module in modules
    }
    renamed = prefixes(adapters, lambda vector, module: vector.stored(module)[1].name)
    made.factors = [
        _planned(made, module, owners[module], renamed[owners[module].name], layers)
        for module in modules
    ]
    lay_out_factors(made)
    if not all(module.certain for module in made.factors):
        made.notes.append("the ranks depend on the values: the output may be smaller than planned.")
    return list(_differing(made))


def adapters_of(made: Plan) -> list[LowRankVector]:
    """The plan's models, which are all LoRA adapters."""
    return [vector for vector in made.vectors if isinstance(vector, LowRankVector)]


def lay_out_factors(made: Plan, ranks: Mapping[str, int] | None = None) -> None:
    """Lay out the output's files, for ranks that were measured or as they are planned.

    Args:
        made: with its `factors`.
        ranks: by the modules' names.
    """
    if ranks is not None:
        made.factors = [
            replace(module, rank=ranks[module.name], certain=True) for module in made.factors
        ]
    made.layout = plan_layout(
        (
            tensor
            for module in made.factors
            for tensor in (
                (module.B, module.dtype, _with_rank(module.shapes[0], 1, module.rank)),
                (module.A, module.dtype, _with_rank(module.shapes[1], 0, module.rank)),
            )
        ),
        stem="adapter_model",
    )


def _planned(
    made: Plan, module: str, owner: LowRankVector, prefix: tuple[str, str], layers: int
) -> MergedModule:
    B, A = owner.stored(module)
    arguments = made.recipe.arguments_for(
        f"{module}.weight", depth_of(f"{module}.weight", layers, dialect=made.recipe.dialect)
    )
    ranks = [vector.rank(module) if module in vector.modules else 0 for vector in adapters_of(made)]
    rank, certain = ranks[0], True
    if made.method.rank is not None:
        sizes = B.shape[0], math.prod(A.shape[1:])
        rank, certain = made.method.rank(ranks, *sizes, **arguments)
    return MergedModule(
        name=module,
        B=output_name(B.name, prefix),
        A=output_name(A.name, prefix),
        shapes=(B.shape, A.shape),
        dtype=made.dtype or _wider(B, A),
        rank=max(rank, 1),
        certain=certain,
        arguments=arguments,
    )


def _wider(B: TensorSpec, A: TensorSpec) -> str:
    return B.dtype if dtypes.itemsize(B.dtype) >= dtypes.itemsize(A.dtype) else A.dtype


def _with_rank(shape: tuple[int, ...], axis: int, rank: int) -> tuple[int, ...]:
    return (*shape[:axis], rank, *shape[axis + 1 :])


def _differing(made: Plan) -> Iterator[Problem]:
    """What keeps the modules from being one vector to the rule's first pass."""
    first, *others = made.factors
    rule = rule_of(made.method, first.arguments)
    if rule is None or rule.first_pass is None:
        return
    for module in others:
        if {rule.first_pass.scope(**each.arguments) for each in (first, module)} != {"model"}:
            continue
        for key in rule.first_pass.reads:
            found, expected = module.arguments[key], first.arguments[key]
            if found != expected:
                what = f"is {found}, but the module is one vector with {first.name}: {expected}."
                fix = "Give one value for all modules, or trim: module."
                yield Problem(f"{key} of {module.name}", what, fix)
                return


def _unequal(made: Plan, adapters: list[LowRankVector]) -> Iterator[Problem]:
    first, fix = adapters[0], f"{made.method.name} needs adapters of the same modules and ranks"
    fix += ": lora_concat, lora_svd, knots and core_space do not."
    for vector in adapters[1:]:
        for module in sorted(set(first.modules) ^ set(vector.modules)):
            what = f"is adapted by only one of {first.name} and {vector.name}."
            yield Problem(f"{vector.name}: {module}", what, fix)
        for module in first.modules:
            if module in vector.modules and vector.rank(module) != first.rank(module):
                what = f"has rank {vector.rank(module)}, {first.name} has {first.rank(module)}."
                yield Problem(f"{vector.name}: {module}", what, fix)
