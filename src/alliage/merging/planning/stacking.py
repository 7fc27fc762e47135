"""Recipes with slices: an output whose layers come from chosen layers of the models."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import accumulate

from alliage.checkpoints.names import layer_of
from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.planning.layer_settings import obstacle
from alliage.merging.planning.models import make_names_unique, open_donor
from alliage.merging.planning.outputs import finish_layout, lay_out, set_heads_apart
from alliage.merging.planning.plan import Plan, Source
from alliage.merging.recipe.parameters import depth_of

_LAYER_NUMBER = re.compile(r"^(.*?(?:^|\.)(?:layers?|h|blocks?|transformer_blocks)\.)\d+(\..*)?$")


def plan_stack(made: Plan) -> None:
    """Fill a plan whose recipe has slices.

    Layers come in the order of the slices. What stands before the layers (embeddings) is merged
    as in the first slice, what stands after them as in the last one.

    Raises:
        UsageError: the base is an encoder-decoder, or its number of layers is not known.
        AlliageError: a model lacks a layer or tensor; all of them.
    """
    base, recipe = made.base, made.recipe
    if base is None:
        return
    if made.makes_adapter:
        raise UsageError(Problem("slices", f"{made.method.name} merges adapters, not layers."))
    refused = obstacle(base.config) if base.config is not None else ""
    if refused:
        raise UsageError(Problem(base.ref, refused, "Merge it without slices."))
    numbers = {ref: number for number, ref in enumerate(recipe.refs)}
    made.vectors = [open_donor(made, base, ref) for ref in recipe.refs]
    make_names_unique(made.vectors)
    set_heads_apart(made)
    problems: list[Problem] = []
    starts = list(accumulate((part.length for part in recipe.slices), initial=0))
    delta = made.method.space == "delta"
    donors = [made.vectors[numbers[part.models[0].model]] for part in recipe.slices]
    made.layer_sources = tuple(
        (base if delta else donor.checkpoints[0], layer)
        for part, donor in zip(recipe.slices, donors, strict=True)
        for layer in range(*part.models[0].layers)
    )

    # By role, the shapes that config.json's model has; of a role it lacks, the first slice's.
    known: defaultdict[str, set[tuple[int, ...]]] = defaultdict(set)
    for name, spec in base.specs().items():
        known[_role(name)].add(spec.shape)

    def add(name: str, index: int, names: list[str], depth: float) -> None:
        """One output tensor from each model's own tensor of the slice."""
        entries = recipe.slices[index].models
        found = [made.vectors[numbers[entry.model]] for entry in entries]
        lacking = [
            Problem(f"{entry.model}: {own}", "is not in the model.")
            for entry, own, vector in zip(entries, names, found, strict=True)
            if own not in (base.specs() if delta else vector.shapes)
        ]
        if lacking:
            problems.extend(lacking)
            return
        if delta and not any(names[0] in vector.shapes for vector in found):
            lay_out(made, name, base.specs()[names[0]], (), {})
            return
        spec = base.specs()[names[0]] if delta else found[0].source(names[0])
        shapes = known[_role(name)] or {spec.shape}
        known[_role(name)] = shapes
        expected = spec.shape if spec.shape in shapes else min(shapes)
        for entry, own, vector in zip(entries, names, found, strict=True):
            shape = vector.shapes.get(own, spec.shape)
            if shape != expected:
                what = f"has the shape {list(shape)}, expected {list(expected)}."
                problems.append(Problem(f"{entry.model}: {own}", what))
        sources = tuple(
            Source(numbers[entry.model], own) for entry, own in zip(entries, names, strict=True)
        )
        arguments = recipe.arguments_for(name, depth, slice_index=index, sources=names)
        lay_out(made, name, spec, sources, arguments)

    for name, spec in base.specs().items():
        if layer_of(name) is not None or name in base.ties:
            continue
        last = depth_of(name, 2) > 0
        index = len(recipe.slices) - 1 if last else 0
        if spec.is_weight:
            depth = depth_of(name, 2, dialect=recipe.dialect)
            add(name, index, [name] * len(recipe.slices[index].models), depth)
        else:
            lay_out(made, name, spec, (), {})
    body = [n for n, spec in base.specs().items() if spec.is_weight and n not in base.ties]
    for index, part in enumerate(recipe.slices):
        for step in range(part.length):
            layers = [entry.layers[0] + step for entry in part.models]
            given = body if delta else donors[index].shapes
            here = [name for name in given if layer_of(name) == layers[0]]
            if not here:
                what = f"has no layer {layers[0]}."
                problems.append(Problem(base.ref if delta else part.models[0].model, what))
            for own in here:
                name = _at(own, starts[index] + step)
                depth = depth_of(name, part.length, first=starts[index], dialect=recipe.dialect)
                add(name, index, [_at(own, layer) for layer in layers], depth)
    buffers = [n for n, s in base.specs().items() if layer_of(n) is not None and not s.is_weight]
    if buffers:
        what = f"{len(buffers)} buffers of layers are left out, the first {buffers[0]}."
        made.notes.append(what)
    if problems:
        raise AlliageError(list(dict.fromkeys(problems)))
    finish_layout(made)


def _at(name: str, layer: int) -> str:
    """A tensor's name, moved to another layer."""
    return _LAYER_NUMBER.sub(lambda match: f"{match[1]}{layer}{match[2] or ''}", name)


def _role(name: str) -> str:
    """A tensor's name without the number of its layer: what it does in any layer."""
    return _LAYER_NUMBER.sub(lambda match: f"{match[1]}*{match[2] or ''}", name)
