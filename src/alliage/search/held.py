"""The tensors of a recipe's models, held in memory, and what a method makes of them.

Everything is computed by the merge engine's own code, on blocks that come from memory instead of
files, so a merge in memory has the values of the merge that is written.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging import kernels
from alliage.merging.engine.blocks import Block, cut, for_each
from alliage.merging.engine.computing import Computing, KernelComputing, TorchComputing
from alliage.merging.engine.passes import Statistics, measure
from alliage.merging.engine.progress import torch_alone
from alliage.merging.engine.values import narrowed, widened
from alliage.merging.kernels import Seen
from alliage.merging.planning.plan import MergedTensor, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_PIECE = 2**15  # elements that are written together

Made = Mapping[str, "Tensor"]  # a merged tensor's name -> what the method returns for it, flat


class Held:
    """Merges of the same models by any methods and parameters, into tensors in memory.

    Task vectors and the base are read once, in float32. What a method makes of them is kept, too,
    without its last factor (see `Parameter.factor`): points that differ in nothing else cost one
    multiplication and one sum.
    """

    def __init__(self, memory: int) -> None:
        """Hold nothing yet.

        Args:
            memory: bytes that results of methods may take; the latest is always kept.
        """
        self._memory = memory
        self._bases: dict[str, Tensor] = {}
        self._inputs: dict[tuple[str, str], Tensor] = {}  # (space, tensor) -> [n, elements]
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._statistics: dict[str, Statistics] = {}

    def merge_into(self, targets: Mapping[str, Tensor], plan: Plan) -> None:
        """Write what a plan merges over the tensors of its output, as files would hold it.

        Args:
            targets: name of the output -> tensor of its shape, of any type and device. Those that
                no model changes stay as they are.
            plan: without problems; all plans have the same models.

        Raises:
            UsageError: a method that makes an adapter.
            AlliageError: NaN or infinity in the inputs, or in what would be merged; all of them.
        """
        made, factor = self.made(plan), _factor(plan)
        problems: list[Problem] = []

        def write(tensor: MergedTensor) -> None:
            places = [targets[name] for name in (tensor.name, *tensor.copies) if name in targets]
            direct = places[:1] if places and _is_plain(places[0]) else []
            values = direct[0] if direct else torch.empty(tensor.spec.shape)
            finite = _finish(
                made[tensor.name].numpy(),
                np.float32(1.0 if factor is None else tensor.arguments[factor]),
                self._bases[tensor.name].numpy() if plan.method.space == "delta" else None,
                tensor.dtype,
                values.view(-1).numpy(),
            )
            if not finite:
                what = f"some merged values are no finite {tensor.dtype}."
                problems.append(Problem(f"output: {tensor.name}", what))
            for place in places[len(direct) :]:
                place.copy_(values)

        for_each(plan.merged, write, plan.workers)
        if problems:
            raise AlliageError(sorted(problems, key=str))

    def made(self, plan: Plan) -> Made:
        """What the method itself returns for each merged tensor, its last factor left out."""
        if plan.method.unit == "factors":
            what = f"{plan.method.name} makes an adapter: a search needs methods that make models."
            raise UsageError(Problem("method", what))
        if plan.method.masks is not None:
            what = f"{plan.method.name} makes a model for each task, from masks."
            raise UsageError(Problem("method", what, "A search needs methods that make one."))
        key = _key(plan, [name for name in plan.method.parameters if name != _factor(plan)])
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        size = 4 * plan.numel
        while self._made and size * (len(self._made) + 1) > self._memory:
            self._made.popitem(last=False)
        self._read(plan)
        self._made[key] = self._compute(plan)
        return self._made[key]

    def inputs(self, plan: Plan) -> Made:
        """The models' task vectors, [n, elements] of each merged tensor; not to be changed."""
        self._read(plan)
        return {tensor.name: self._inputs["delta", tensor.name] for tensor in plan.merged}

    def forget_made(self) -> None:
        """Let go what methods made of the models."""
        self._made.clear()

    def clear(self) -> None:
        """Hold nothing any more; what is needed again is read again."""
        for held in (self._bases, self._inputs, self._made, self._statistics):
            held.clear()

    def base(self, tensor: str) -> Tensor:
        """The base's elements of a tensor that was merged, float32, flat."""
        return self._bases[tensor]

    def _read(self, plan: Plan) -> None:
        """Read what the plan merges and is not held yet, as the engine reads it."""
        space = plan.method.space
        reader = _Reader(plan, None, "cpu")
        waiting = [tensor for tensor in plan.merged if (space, tensor.name) not in self._inputs]

        def read(tensor: MergedTensor) -> None:
            base, tensors = reader.read(tensor)
            self._inputs[space, tensor.name] = tensors
            if space == "delta":
                self._bases[tensor.name] = base

        with torch_alone(reader):
            for_each(waiting, read, plan.workers)
        reader.raise_flaws()

    def _compute(self, plan: Plan) -> Made:
        factor = _factor(plan)
        plan = replace(
            plan,
            merged=[
                replace(
                    tensor,
                    dtype="F32",
                    arguments={**tensor.arguments, **({factor: 1.0} if factor else {})},
                )
                for tensor in plan.merged
            ],
        )
        inputs = {
            tensor.name: self._inputs[plan.method.space, tensor.name] for tensor in plan.merged
        }
        made = {tensor.name: np.empty(tensor.spec.numel, np.float32) for tensor in plan.merged}
        computing = _computing(plan, inputs, made)
        with torch_alone(computing):
            _run(plan, computing, self._first_passes(plan, computing))
        return {name: torch.from_numpy(values) for name, values in made.items()}

    def _first_passes(self, plan: Plan, computing: Computing) -> Statistics | None:
        """Statistics of whole tensors and models: those that were measured before, if they fit."""
        first_pass = plan.method.first_pass
        if first_pass is None:
            return None
        key = _key(plan, first_pass.reads)
        if key not in self._statistics:
            self._statistics[key] = measure(plan, computing, plan.block, lambda *_: None)
        return self._statistics[key]


def _is_plain(target: Tensor) -> bool:
    """Whether a target's memory can be written to as it is."""
    return target.device.type == "cpu" and target.dtype == torch.float32 and target.is_contiguous()


def _finish(
    made: NDArray[np.float32],
    factor: np.float32,
    base: NDArray[np.float32] | None,
    dtype: str,
    out: NDArray[np.float32],
) -> bool:
    """Write base + made · factor, rounded to a stored type; whether all of it is finite.

    In pieces that stay in the cache, each operation rounded by itself as in the engine.
    """
    finite = True
    for start in range(0, len(made), _PIECE):
        piece = out[start : start + _PIECE]
        with np.errstate(over="ignore"):
            np.multiply(made[start : start + _PIECE], factor, out=piece)
            if base is not None:
                np.add(base[start : start + _PIECE], piece, out=piece)
        if dtype != "F32":
            piece[:] = widened(narrowed(piece, dtype).view(np.uint8), dtype)
        finite = finite and bool(np.isfinite(piece).all())
    return finite


def _run(plan: Plan, computing: Computing, statistics: Statistics | None) -> None:
    """Compute all blocks, and again those that a guess was wrong for."""
    whole, guess, size = plan.method.unit == "tensor", plan.method.guess, plan.block
    blocks = [
        block
        for tensor in plan.merged
        for block in cut(tensor, tensor.spec.numel, max(tensor.spec.numel, 1) if whole else size)
    ]
    guessed: Mapping[str, Any] = guess.guessed if guess is not None else {}
    seen: dict[int, Seen] = {}
    lock = threading.Lock()

    def work(place: int) -> None:
        measured = statistics.arguments(blocks[place]) if statistics is not None else {}
        found = computing.compute(blocks[place], {**measured, **guessed})
        with lock:
            seen[place] = found

    for_each(range(len(blocks)), work, plan.workers)
    computing.raise_flaws()
    if guess is None:
        return
    settled = guess.settle(sum(each.count for each in seen.values()))
    if settled != guessed:
        guessed = settled
        for_each([place for place, each in seen.items() if each.depends], work, plan.workers)


class _Reader(TorchComputing):
    """Reads whole tensors as the engine's blocks are read."""

    def read(self, tensor: MergedTensor) -> tuple[Tensor, Tensor]:
        """The base's elements [m] and what the method works on [n, m], float32."""
        return self._read(Block(tensor, 0, tensor.spec.numel))


class _FromMemory:
    """What computing from memory into memory has in common; the base is left out, as zeros."""

    inputs: Mapping[str, Tensor]
    made: Mapping[str, NDArray[np.float32]]

    def write(
        self,
        names: tuple[str, ...],
        start: int,
        raw: NDArray[Any],
        *,
        again: bool = False,  # noqa: ARG002  every write replaces
    ) -> None:
        values = raw.view(np.uint8).view(np.float32)
        self.made[names[0]][start : start + len(values)] = values


class _KernelFromMemory(_FromMemory, KernelComputing):
    def _read(self, block: Block) -> tuple[NDArray[Any], NDArray[Any]]:
        tensors = self.inputs[block.tensor.name]
        models, size = len(tensors), block.stop - block.start
        filled = self._buffer("inputs", models * size, np.dtype(np.float32)).reshape(models, size)
        filled[:] = tensors[:, block.start : block.stop].numpy()
        if self.plan.method.space == "weight":
            return filled[0], filled
        return np.zeros(size, np.float32), filled

    def _blame(self, block: Block) -> bool:  # noqa: ARG002  inputs were seen to be finite
        return False


class _TorchFromMemory(_FromMemory, TorchComputing):
    def _read(self, block: Block) -> tuple[Tensor, Tensor]:
        tensors = self.inputs[block.tensor.name][:, block.start : block.stop].contiguous()
        return torch.zeros(block.stop - block.start), tensors


def _computing(
    plan: Plan, inputs: Mapping[str, Tensor], made: Mapping[str, NDArray[np.float32]]
) -> Computing:
    # Also for adapters: their deltas are held like all others. No kernel takes given signs.
    fused = plan.method.unit == "block" and plan.signs is None
    kernel = kernels.find(plan.method.name) if fused else None
    computing: _KernelFromMemory | _TorchFromMemory = (
        _TorchFromMemory(plan, None, "cpu")
        if kernel is None
        else _KernelFromMemory(plan, None, kernel)
    )
    computing.inputs, computing.made = inputs, made
    return computing


def _factor(plan: Plan) -> str | None:
    """The parameter that the method multiplies its result with at last, if there is one."""
    return next((name for name, each in plan.method.parameters.items() if each.factor), None)


def _key(plan: Plan, parameters: Iterable[str]) -> str:
    """What tells a plan from others of the same models, as far as some parameters go."""
    names = sorted(parameters)
    own = {tuple(repr(t.arguments[name]) for name in names): None for t in plan.merged}
    if len(own) == 1:
        return repr((plan.method.name, names, *own))
    by_tensor = [(t.name, [t.arguments[name] for name in names]) for t in plan.merged]
    return repr((plan.method.name, by_tensor))
