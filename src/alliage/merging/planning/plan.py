"""What a merge will do, known before the first tensor is read."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from alliage.checkpoints import Checkpoint, TensorSpec, dtypes
from alliage.checkpoints.names import module_of
from alliage.checkpoints.remote import RemotePath
from alliage.checkpoints.statistics import Statistics
from alliage.checkpoints.writer import MAX_SHARD_BYTES, Layout
from alliage.errors import AlliageError, Problem
from alliage.merging import kernels
from alliage.merging.planning.estimate import estimated_seconds
from alliage.merging.planning.merged import MergedModule, MergedScales
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import SMALLEST_BLOCK, Method
from alliage.vectors import TaskVector, Vector, WholeModel

DEFAULT_MEMORY = 2**30
BLOCK = 2**18  # elements: all models' blocks of this size stay in the cache
_REMOTE_BLOCK = 2**22  # the same from URLs, where every read is a journey
SAMPLE = 2**20  # elements that a first pass is shown of a whole vector, in slices
_SLICE, _REMOTE_SLICE = 2**8, 2**13
_COPIES = 5  # float32 tensors of the size of all models' blocks that a method holds at once


class Source(NamedTuple):
    """One model's part in a merged tensor.

    Attributes:
        vector: its place among the plan's vectors.
        parameter: the vector's name of the tensor.
    """

    vector: int
    parameter: str


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """One parameter of the output that is computed.

    Attributes:
        name: in the output.
        spec: of the base's tensor (with slices, the first model's): its name, and the shape of all.
        dtype: code of the output's type.
        copies: further names that get the same bytes (tied weights).
        sources: what is merged; none where the type alone changes.
        arguments: of the method, per-model ones in the order of the sources.
    """

    name: str
    spec: TensorSpec
    dtype: str
    copies: tuple[str, ...]
    sources: tuple[Source, ...]
    arguments: Mapping[str, Any]


class Copied(NamedTuple):
    """A tensor of the output that is the base's own, byte for byte."""

    name: str
    source: str


@dataclass(slots=True)
class Plan:
    """Everything that a merge will do.

    Attributes:
        recipe, method: what was asked for.
        arguments: the method's, where they are the same for every tensor.
        base: the donor of names, configuration and tokenizer: the base, or the first model.
        vectors: the models, in the order of the recipe.
        statistics: of each of them, where the method needs some.
        merged: the parameters that the method computes.
        converted: parameters that no model changes but whose type the output changes.
        copied: tensors that are copied from the base as they are.
        signs: given ones, that replace an election.
        factors: the adapted modules of an adapter that is merged by its factors.
        scales: the modules of an (IA)3 adapter that is made of others.
        left_apart: model -> its task heads' names; they are kept in folders of their own.
        layout: the output's files; None where problems forbid one.
        layer_sources: where slices stack layers, whose layer, and which, sets up each of them.
        tokenizer: whose tokenizer the output gets.
        dropped: the base's task heads, which decide none of the merged tasks.
        errors: whatever keeps the plan from being run.
        notes: what a user should know, though it stops nothing.
        memory: the budget in bytes that blocks are cut for.
        threads: workers.
        shard_bytes: of tensors in one file of the output, at the most.
    """

    recipe: MergeRecipe
    method: Method
    arguments: dict[str, Any]
    base: Checkpoint | None = None
    vectors: list[Vector] = field(default_factory=list)
    statistics: list[Statistics] = field(default_factory=list)
    merged: list[MergedTensor] = field(default_factory=list)
    converted: list[MergedTensor] = field(default_factory=list)
    copied: list[Copied] = field(default_factory=list)
    signs: Checkpoint | None = None
    factors: list[MergedModule] = field(default_factory=list)
    scales: list[MergedScales] = field(default_factory=list)
    left_apart: dict[str, tuple[str, ...]] = field(default_factory=dict)
    layout: Layout | None = None
    layer_sources: tuple[tuple[Checkpoint, int], ...] | None = None
    tokenizer: Checkpoint | None = None
    dropped: list[str] = field(default_factory=list)
    errors: list[AlliageError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    memory: int = DEFAULT_MEMORY
    threads: int = 1
    shard_bytes: int = MAX_SHARD_BYTES

    @property
    def makes_adapter(self) -> bool:
        """Whether the output is an adapter, not a full model."""
        return self.method.unit == "factors" or bool(self.recipe.adapter)

    @property
    def dtype(self) -> str | None:
        """The code of the type that the recipe gives the output's weights, if it gives one."""
        return dtypes.code_of(self.recipe.dtype) if self.recipe.dtype else None

    @property
    def problems(self) -> list[Problem]:
        """Everything that is wrong, once."""
        return list(dict.fromkeys(each for error in self.errors for each in error.problems))

    def raise_problems(self) -> None:
        """Raise all problems together, as a usage error if one of them is."""
        if self.errors:
            raise type(max(self.errors, key=lambda error: error.exit_code))(self.problems)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Everything that tensors are read from: the base, and what the models are made of."""
        inputs = [self.base] if self.base is not None else []
        inputs += [each for vector in self.vectors for each in vector.checkpoints]
        inputs += [statistics.file for statistics in self.statistics]
        return inputs + ([self.signs] if self.signs is not None else [])

    @property
    def numel(self) -> int:
        """Elements of the whole vector: all merged parameters, tied ones once."""
        return sum(spec.numel for spec in self._merged_specs())

    @property
    def largest(self) -> int:
        """Elements of the largest merged parameter."""
        return max((tensor.spec.numel for tensor in self.merged), default=0)

    def groups(self) -> list[list[MergedTensor]]:
        """The tensors that the method's first pass sees as one vector, largest groups first."""
        first_pass = self.method.first_pass
        if first_pass is None:
            return []
        found: dict[str, list[MergedTensor]] = {}
        for tensor in self.merged:
            scope = first_pass.scope(**tensor.arguments)
            keys = {"model": "", "module": module_of(tensor.name), "tensor": tensor.name}
            found.setdefault(keys[scope], []).append(tensor)
        return sorted(found.values(), key=lambda group: -sum(t.spec.numel for t in group))

    @property
    def sources_at_once(self) -> int:
        """The most models that one tensor is made of."""
        return max((len(tensor.sources) for tensor in self.merged), default=len(self.vectors))

    @property
    def _bytes_per_element(self) -> int:
        """Of a block, in one worker: float32 tensors of all models, of the base and the result."""
        copies = _COPIES + (2 if self.statistics else 0)
        return 4 * (copies * self.sources_at_once + 4 + self.method.work)

    def memory_for(
        self, workers: int, block: int = SMALLEST_BLOCK, *, measured: bool = False
    ) -> int:
        """The smallest budget that so many workers can keep.

        Args:
            workers: threads.
            block: elements of a block.
            measured: whether the first passes are done.
        """
        if self.makes_adapter:
            sizes = [each.numel for each in self.factors] + [each.numel for each in self.scales]
            return workers * 8 * _COPIES * (len(self.vectors) + 1) * max(sizes, default=0)
        if self.method.unit == "tensor":
            grams = (spec.numel for each in self.statistics for spec in each.file.specs().values())
            block = max(self.largest, max(grams, default=0))
        first_passes = 0 if measured else self._first_pass_memory(workers)
        return first_passes + self._bytes_per_element * block * workers

    def _first_pass_memory(self, workers: int) -> int:
        first_pass, groups = self.method.first_pass, self.groups()
        if first_pass is None or not groups:
            return 0
        sampled = min(SAMPLE, sum(tensor.spec.numel for tensor in groups[0]))
        at_once = min(workers, len(groups))
        return at_once * first_pass.memory(self.sources_at_once, sampled)

    def fitting_workers(self, block: int = SMALLEST_BLOCK, *, measured: bool = False) -> int:
        """How many of the threads can work within the memory; see `memory_for`."""
        return bisect.bisect_right(
            range(1, self.threads + 1),
            self.memory,
            key=lambda count: self.memory_for(count, block, measured=measured),
        )

    @property
    def workers(self) -> int:
        """Threads: fewer than asked for where the memory is too little for all of them."""
        return max(1, self.fitting_workers())

    @property
    def least_memory(self) -> int:
        """The smallest budget that the plan can keep, with one worker."""
        return self.memory_for(1)

    @property
    def remote(self) -> bool:
        """Whether an input is read from a URL."""
        return any(isinstance(each.path, RemotePath) for each in self.checkpoints)

    @property
    def kernel(self) -> ModuleType | None:
        """The compiled kernel for its blocks; only full models have stored values to read.

        None takes given signs.
        """
        if self.signs is not None:
            return None
        stored = all(isinstance(vector, TaskVector | WholeModel) for vector in self.vectors)
        return kernels.find(self.method.name) if stored and self.method.unit == "block" else None

    @property
    def slice(self) -> int:
        """Elements of the slices that a first pass is shown before it sees all."""
        return _REMOTE_SLICE if self.remote else _SLICE

    @property
    def block(self) -> int:
        """Elements of a block, so that all threads together stay within `memory`."""
        workers = self.workers
        left = self.memory - self._first_pass_memory(workers)
        fitting = left // (self._bytes_per_element * workers)
        largest = _REMOTE_BLOCK if self.remote else BLOCK
        return max(SMALLEST_BLOCK, min(largest, fitting // SMALLEST_BLOCK * SMALLEST_BLOCK))

    @property
    def working_memory(self) -> int:
        """Bytes of anonymous memory that the merge takes, beside the interpreter's libraries."""
        return self.memory_for(self.workers, self.block)

    @property
    def bytes_to_read(self) -> int:
        """Bytes of tensors, over all passes that are certain."""
        if self.base is None:
            return 0
        passes = max((self.method.readings(**each.arguments) for each in self.merged), default=1)
        models = sum(stored_bytes(vector) for vector in self.vectors)
        models += sum(statistics.file.nbytes for statistics in self.statistics)
        signs = self.signs.nbytes if self.signs is not None else 0
        specs = self.base.specs()
        needs_base = self.method.space == "delta"
        changed = sum(tensor.spec.nbytes for tensor in self.merged) if needs_base else 0
        once = sum(tensor.spec.nbytes for tensor in self.converted)
        once += sum(specs[tensor.source].nbytes for tensor in self.copied)
        return passes * (models + changed) + once + signs

    @property
    def bytes_to_write(self) -> int:
        """Bytes of the output's weight files."""
        return self.layout.nbytes if self.layout is not None else 0

    @property
    def disk(self) -> int:
        """Bytes of weights that come to lie below the output, heads and masks too."""
        heads = sum(
            spec.nbytes
            for vector in self.vectors
            for checkpoint in vector.checkpoints
            for name, spec in checkpoint.specs().items()
            if name in self.left_apart.get(vector.name, ())
        )
        return self.bytes_to_write + heads + self._mask_bytes

    @property
    def _mask_bytes(self) -> int:
        """Bytes of the models' masks, where the method writes some."""
        if self.method.masks is None:
            return 0
        return len(self.vectors) * sum(-(-tensor.spec.numel // 8) for tensor in self.merged)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for people and for JSON."""
        return {
            "method": self.method.name,
            "dialect": self.recipe.dialect,
            "arguments": self.arguments,
            "by_tensor": sorted(set(self.method.parameters) - set(self.arguments)),
            "base": self.base.ref if self.base is not None else None,
            "models": [vector.name for vector in self.vectors],
            "signs": self.signs.ref if self.signs is not None else None,
            "tensors_merged": len(self._merged_specs()),
            "tensors_converted": len(self.converted),
            "tensors_copied": len(self.copied),
            "elements_merged": self.numel,
            "layers": len(self.layer_sources) if self.layer_sources is not None else None,
            "tied": dict(self.base.ties) if self.base is not None else {},
            "heads_left_apart": {name: list(heads) for name, heads in self.left_apart.items()},
            "heads_dropped": self.dropped,
            "notes": self.notes,
            "output_dtypes": dict(Counter(tensor.dtype for tensor in self.merged)),
            "output_files": list(self.layout.shards) if self.layout is not None else [],
            "bytes_to_read": self.bytes_to_read,
            "bytes_to_write": self.bytes_to_write,
            "working_memory": self.working_memory,
            "memory": self.memory,
            "disk": self.disk,
            "estimated_seconds": None if self.errors else self._seconds(),
            "threads": self.workers,
            "problems": [str(problem) for problem in self.problems],
            "tensors": self._tensors(),
        }

    def _seconds(self) -> float:
        seconds = self.method.seconds or (lambda *_, **__: 0.0)
        return estimated_seconds(
            elements=self.numel * self.sources_at_once,
            compiled=self.kernel is not None,
            decomposing=(
                seconds(len(t.sources), t.spec.shape[0], math.prod(t.spec.shape[1:]), **t.arguments)
                for t in self.merged
                if len(t.spec.shape) > 1
            ),
            nbytes=self.bytes_to_read + 2 * self.bytes_to_write,
            workers=self.workers,
        )

    def _merged_specs(self) -> list[TensorSpec]:
        """What is computed: parameters, or an adapter's factors or scales."""
        if self.makes_adapter and self.layout is not None:
            return [spec for shard in self.layout.shards.values() for spec in shard]
        return [tensor.spec for tensor in self.merged]

    def _tensors(self) -> list[dict[str, Any]]:
        """What becomes of each tensor of the output, with the arguments that are its own."""
        if self.makes_adapter:
            return [
                {"name": s.name, "becomes": "merged", "dtype": s.dtype, "shape": list(s.shape)}
                for s in self._merged_specs()
            ]
        specs = self.base.specs() if self.base is not None else {}
        computed = [("merged", tensor) for tensor in self.merged]
        computed += [("converted", tensor) for tensor in self.converted]
        found: list[dict[str, Any]] = [
            {
                "name": tensor.name,
                "becomes": what,
                "dtype": tensor.dtype,
                "shape": list(tensor.spec.shape),
                "copies": list(tensor.copies),
                "models": [self.vectors[source.vector].name for source in tensor.sources],
                "arguments": {k: v for k, v in tensor.arguments.items() if k not in self.arguments},
            }
            for what, tensor in computed
        ]
        return found + [
            {
                "name": copied.name,
                "becomes": "copied",
                "dtype": specs[copied.source].dtype,
                "shape": list(specs[copied.source].shape),
            }
            for copied in self.copied
        ]


def stored_bytes(vector: Vector) -> int:
    """Bytes of what a model adds to the merge."""
    heads = set(vector.heads)
    return sum(
        spec.nbytes
        for checkpoint in vector.checkpoints
        for name, spec in checkpoint.specs().items()
        if name not in heads
    )
