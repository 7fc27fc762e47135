"""Laying out a merge of (IA)3 adapters that makes an (IA)3 adapter."""

from __future__ import annotations

from collections.abc import Iterator

from alliage.checkpoints.names import layer_count
from alliage.checkpoints.writer import plan_layout
from alliage.errors import Problem
from alliage.merging.planning.adapter_names import output_name, prefixes
from alliage.merging.planning.merged import MergedScales
from alliage.merging.planning.plan import Plan
from alliage.merging.recipe.parameters import depth_of
from alliage.vectors import ScalingVector


def plan_scales(made: Plan) -> list[Problem]:
    """Lay out an adapter for all modules that the given ones scale; what keeps it from being."""
    problems = [
        Problem(
            vector.name,
            "is no (IA)3 adapter, but an adapter is asked for.",
            "Leave adapter out; of LoRA adapters, methods with unit factors make one.",
        )
        for vector in made.vectors
        if not isinstance(vector, ScalingVector)
    ]
    problems += _beyond(made)
    if problems:
        return problems
    adapters = scalings_of(made)
    made.left_apart = {vector.name: vector.heads for vector in adapters if vector.heads}
    modules = dict.fromkeys(module for vector in adapters for module in vector.modules)
    layers = layer_count(modules)
    renamed = prefixes(adapters, lambda vector, module: vector.source(f"{module}.weight").name)
    for module in modules:
        name = f"{module}.weight"
        owners = [vector for vector in adapters if module in vector.modules]
        first, *others = (vector.source(name) for vector in owners)
        problems += [
            Problem(
                f"{spec.file}: {spec.name}",
                f"has the shape {list(spec.shape)}, {owners[0].name} has {list(first.shape)}.",
                "One scales inputs, the other outputs: set feedforward_modules alike.",
            )
            for spec in others
            if spec.shape != first.shape
        ]
        depth = depth_of(name, layers, dialect=made.recipe.dialect)
        made.scales.append(
            MergedScales(
                name=module,
                stored=output_name(first.name, renamed[owners[0].name]),
                shape=first.shape,
                dtype=made.dtype or first.dtype,
                arguments=made.recipe.arguments_for(name, depth),
            )
        )
    made.layout = plan_layout(
        ((scales.stored, scales.dtype, scales.shape) for scales in made.scales),
        stem="adapter_model",
    )
    return problems + list(_differing(made))


def scalings_of(made: Plan) -> list[ScalingVector]:
    """The plan's models, which are all (IA)3 adapters."""
    return [vector for vector in made.vectors if isinstance(vector, ScalingVector)]


def groups(made: Plan) -> list[list[MergedScales]]:
    """The scales that the method's first pass sees as one vector."""
    first_pass = made.method.first_pass
    found: dict[str, list[MergedScales]] = {}
    for scales in made.scales:
        whole = first_pass is not None and first_pass.scope(**scales.arguments) == "model"
        found.setdefault("" if whole else scales.name, []).append(scales)
    return list(found.values())


def _beyond(made: Plan) -> Iterator[Problem]:
    """What is only there for the parameters of full models."""
    method, fix = made.method, "Leave adapter out: the output is a full model then."
    if method.statistics is not None:
        yield Problem("method", f"{method.name} needs statistics of full models.", fix)
    if method.masks is not None:
        yield Problem("method", f"{method.name} writes masks of full models.", fix)
    if made.recipe.signs is not None:
        yield Problem("signs", "are of a full model's parameters.", fix)


def _differing(made: Plan) -> Iterator[Problem]:
    for first, *others in groups(made):
        for scales in others:
            if scales.arguments != first.arguments:
                what = f"has other arguments than {first.name}, but they are one vector."
                yield Problem(scales.name, what, "Give one value for all of it, or trim: tensor.")
                return
