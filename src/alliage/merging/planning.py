"""From a recipe to a plan: headers only, every problem at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from alliage.checkpoints import Checkpoint, TensorSpec, dtypes
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.writer import Layout, plan_layout, refuse_existing
from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.recipe import MergeRecipe
from alliage.merging.registry import Method
from alliage.vectors import LowRankVector, ScalingVector, TaskVector
from alliage.vectors import open as open_vector

_Result = TypeVar("_Result")

DEFAULT_MEMORY = 2**30
_BLOCK = 2**18  # elements: all models' blocks of this size stay in the cache
_SMALLEST_BLOCK = 2**12
SAMPLE_SLICES, SLICE = 4096, 256  # what a first pass is shown of the whole vector
_BYTES_PER_SECOND = 1e9  # read, hashed or written: a common disk
_COPIES = 5  # float32 tensors of the size of all models' blocks that a method holds at once


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """One parameter that the method computes.

    Attributes:
        name: the base's name of it.
        spec: in the base.
        dtype: code of the output's type.
        copies: further names that get the same bytes (tied weights).
    """

    name: str
    spec: TensorSpec
    dtype: str
    copies: tuple[str, ...]


@dataclass(slots=True)
class Plan:
    """Everything that a merge will do, known before the first tensor is read.

    Attributes:
        recipe, method, arguments: what was asked for, defaults filled in.
        base: the donor of names, configuration and tokenizer: the base, or the first model.
        vectors: the models, in the order of the recipe.
        merged: the parameters that the method computes.
        converted: parameters that no model changes but whose type the output changes.
        copied: names of tensors that are copied from the base as they are.
        left_apart: model -> its task heads' names; they are kept in folders of their own.
        layout: the output's files; None where problems forbid one.
        dropped: the base's task heads, which decide none of the merged tasks.
        errors: whatever keeps the plan from being run.
        notes: what a user should know, though it stops nothing.
        memory: the budget in bytes that blocks are cut for.
        threads: workers.
    """

    recipe: MergeRecipe
    method: Method
    arguments: dict[str, Any]
    base: Checkpoint | None = None
    vectors: list[TaskVector | LowRankVector | ScalingVector] = field(default_factory=list)
    merged: list[MergedTensor] = field(default_factory=list)
    converted: list[MergedTensor] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    left_apart: dict[str, tuple[str, ...]] = field(default_factory=dict)
    layout: Layout | None = None
    dropped: list[str] = field(default_factory=list)
    errors: list[AlliageError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    memory: int = DEFAULT_MEMORY
    threads: int = 1

    @property
    def problems(self) -> list[Problem]:
        """Everything that is wrong."""
        return [problem for error in self.errors for problem in error.problems]

    def raise_problems(self) -> None:
        """Raise all problems together, as a usage error if one of them is."""
        if self.errors:
            raise type(max(self.errors, key=lambda error: error.exit_code))(self.problems)

    @property
    def numel(self) -> int:
        """Elements of the whole vector: all merged parameters, tied ones once."""
        return sum(tensor.spec.numel for tensor in self.merged)

    @property
    def _bytes_per_element(self) -> int:
        """Of a block, in one worker: float32 tensors of all models, of the base and the result."""
        return 4 * (_COPIES * len(self.vectors) + 4)

    @property
    def _fixed_memory(self) -> int:
        first_pass = self.method.first_pass
        if first_pass is None:
            return 0
        return first_pass.memory(len(self.vectors), min(SAMPLE_SLICES * SLICE, self.numel))

    @property
    def least_memory(self) -> int:
        """The smallest budget that the plan can keep."""
        return self._fixed_memory + self._bytes_per_element * _SMALLEST_BLOCK * self.threads

    @property
    def block(self) -> int:
        """Elements of a block, so that all threads together stay within `memory`."""
        left = self.memory - self._fixed_memory
        fitting = left // (self._bytes_per_element * self.threads)
        return max(_SMALLEST_BLOCK, min(_BLOCK, fitting // _SMALLEST_BLOCK * _SMALLEST_BLOCK))

    @property
    def working_memory(self) -> int:
        """Bytes of anonymous memory that the merge takes, beside the interpreter's libraries."""
        return self._fixed_memory + self._bytes_per_element * self.block * self.threads

    @property
    def bytes_to_read(self) -> int:
        """Bytes of tensors, over all passes that are certain."""
        if self.base is None:
            return 0
        passes = 1 + (self.method.first_pass is not None)
        models = sum(_stored_bytes(vector) for vector in self.vectors)
        specs = self.base.specs()
        changed = sum(tensor.spec.nbytes for tensor in self.merged)
        once = sum(tensor.spec.nbytes for tensor in self.converted)
        once += sum(specs[name].nbytes for name in self.copied)
        return passes * (models + changed) + once

    @property
    def bytes_to_write(self) -> int:
        """Bytes of the output's weight files."""
        return self.layout.nbytes if self.layout is not None else 0

    def estimate_seconds(self) -> float:
        """About how long a run will take, from the time that one made-up block takes here."""
        draw = torch.Generator().manual_seed(0)  # not the caller's random state
        values = torch.rand(len(self.vectors), self.block, generator=draw) - 0.5
        arguments = {
            name: torch.tensor(value) if self.method.parameters[name].per_model else value
            for name, value in self.arguments.items()
        }
        started = time.perf_counter()
        if self.method.unit == "block":
            self.method.function(values, **arguments)
        computing = (time.perf_counter() - started) * self.numel / self.block
        moving = (self.bytes_to_read + 2 * self.bytes_to_write) / _BYTES_PER_SECOND
        return computing / self.threads + moving

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for people and for JSON."""
        return {
            "method": self.method.name,
            "arguments": self.arguments,
            "base": self.base.ref if self.base is not None else None,
            "models": [vector.name for vector in self.vectors],
            "tensors_merged": len(self.merged),
            "tensors_converted": len(self.converted),
            "tensors_copied": len(self.copied),
            "elements_merged": self.numel,
            "tied": dict(self.base.ties) if self.base is not None else {},
            "heads_left_apart": {name: list(heads) for name, heads in self.left_apart.items()},
            "heads_dropped": self.dropped,
            "notes": self.notes,
            "output_dtypes": dict(Counter(tensor.dtype for tensor in self.merged)),
            "output_files": list(self.layout.shards) if self.layout is not None else [],
            "bytes_to_read": self.bytes_to_read,
            "bytes_to_write": self.bytes_to_write,
            "working_memory": self.working_memory,
            "threads": self.threads,
            "problems": [str(problem) for problem in self.problems],
        }


def plan(
    recipe: MergeRecipe,
    *,
    out: str | Path | None = None,
    memory: int = DEFAULT_MEMORY,
    threads: int = 1,
) -> Plan:
    """Open every model of a recipe and decide what becomes of each tensor.

    Nothing but headers is read. Misfits between the files do not raise: they are the plan's
    `problems`, all of them.

    Args:
        recipe: what to merge.
        out: where the result will go, to be checked with the rest.
        memory: bytes of anonymous memory that the merge may take.
        threads: workers.

    Raises:
        UsageError: the recipe itself is wrong.
    """
    method, arguments = recipe.settings()
    made = Plan(recipe, method, arguments, memory=memory, threads=threads)
    if out is not None:
        _attempt(made, partial(refuse_existing, Path(out)))
    if recipe.base is None and method.space == "delta" and method.unit == "block":
        raise UsageError(
            Problem(
                "base", f"{method.name} needs the models' common base.", "Add base: to the recipe."
            )
        )
    made.base = _attempt(made, partial(_open_base, recipe))
    for entry in recipe.models:
        if made.base is None:
            _attempt(made, partial(open_checkpoint, entry.model))  # for its own problems
            continue
        vector = _attempt(made, partial(open_vector, entry.model, made.base, name=entry.name))
        if vector is not None:
            made.vectors.append(vector)
    _make_names_unique(made.vectors)
    if made.base is None or made.errors:
        return made
    if method.unit == "factors":
        made.errors += [AlliageError(problem) for problem in _plan_factors(made)]
    else:
        _plan_blocks(made)
    if made.memory < made.least_memory and method.unit == "block":
        least = f"{made.least_memory / 2**20:.1f} MiB"
        what = f"{made.memory / 2**20:.1f} MiB are too little for this plan."
        made.errors.append(UsageError(Problem("memory", what, f"Give at least {least}.")))
    if made.base.config is None and method.unit == "block":
        made.notes.append(f"{made.base.ref} has no config.json: from_pretrained needs one.")
    return made


def _attempt(made: Plan, work: Callable[[], _Result]) -> _Result | None:
    """What `work` returns; nothing where it fails, and the plan keeps the error."""
    try:
        return work()
    except AlliageError as error:
        made.errors.append(error)
        return None


def _open_base(recipe: MergeRecipe) -> Checkpoint:
    """The recipe's base; without one the first model, or what the first adapter adapts."""
    base = open_checkpoint(recipe.base if recipe.base is not None else recipe.models[0].model)
    if base.adapter is None:
        return base
    if recipe.base is not None:
        raise UsageError(Problem(base.ref, "is an adapter; a base must be a full model."))
    if base.base is None:
        what = "is an adapter that names no base."
        raise UsageError(Problem(base.ref, what, "Add base: to the recipe."))
    return base.base


def _plan_blocks(made: Plan) -> None:
    base = made.base
    assert base is not None
    full = [vector for vector in made.vectors if isinstance(vector, TaskVector)]
    for vector in full:  # a head that some models decide other things with is nobody's to merge
        vector.set_apart(
            [n for n in vector.shapes if is_task_head(n) and any(n not in v.shapes for v in full)]
        )
    made.left_apart = {vector.name: vector.heads for vector in made.vectors if vector.heads}
    changed = {name for vector in made.vectors for name in vector.shapes}
    copies: dict[str, list[str]] = {}
    for later, first in base.ties.items():
        copies.setdefault(first, []).append(later)
    wanted = dtypes.code_of(made.recipe.dtype) if made.recipe.dtype else None
    # Beside heads of the models' own, a head that only the base has decides none of the tasks.
    if any(is_task_head(name) for heads in made.left_apart.values() for name in heads):
        made.dropped = [n for n in base.specs() if is_task_head(n) and n not in changed]
    outputs: list[tuple[str, str, tuple[int, ...]]] = []
    for name, spec in base.specs().items():
        if name in base.ties or name in made.dropped:
            continue
        names = (name, *copies.get(name, ()))
        dtype = wanted if wanted is not None and spec.is_weight else spec.dtype
        if name in changed:
            made.merged.append(MergedTensor(name, spec, dtype, names[1:]))
        elif dtype != spec.dtype:
            made.converted.append(MergedTensor(name, spec, dtype, names[1:]))
        else:
            made.copied += names
        outputs += [(each, dtype, spec.shape) for each in names]
    if not changed:
        made.errors.append(
            AlliageError(Problem(base.ref, "no model changes any of its parameters."))
        )
    made.layout = plan_layout(outputs)


def _plan_factors(made: Plan) -> list[Problem]:
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


def _stored_bytes(vector: TaskVector | LowRankVector | ScalingVector) -> int:
    checkpoint = vector.tuned if isinstance(vector, TaskVector) else vector.adapter
    heads = set(vector.heads)
    return sum(spec.nbytes for name, spec in checkpoint.specs().items() if name not in heads)


def _make_names_unique(vectors: Sequence[TaskVector | LowRankVector | ScalingVector]) -> None:
    """Number models of one name: each has its folder of heads and its line in tables."""
    taken: set[str] = set()
    for vector in vectors:
        name, number = vector.name, 1
        while vector.name in taken:
            number += 1
            vector.name = f"{name}-{number}"
        taken.add(vector.name)
