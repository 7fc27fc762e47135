"""Merging by blocks: any model size in the memory of a few blocks.

Every parameter is cut into aligned flat blocks. Workers take them in order, read the same range of
the base and of every model, and write the result in its place. A method's first pass sees all
blocks before the merge begins.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from alliage.checkpoints import dtypes
from alliage.checkpoints.writer import TensorWriter
from alliage.errors import AlliageError, Problem
from alliage.merging.planning import SAMPLE_SLICES, SLICE, MergedTensor, Plan
from alliage.merging.ties_check import check_ties
from alliage.threads import one_torch_thread
from alliage.vectors import TaskVector

OnEvent = Callable[[str, int, int], None]
Item = TypeVar("Item")


class Block(NamedTuple):
    """Elements [start, stop) of one parameter."""

    tensor: MergedTensor
    start: int
    stop: int


def merge_blocks(plan: Plan, writer: TensorWriter, device: str, notify: OnEvent) -> tuple[int, int]:
    """Write every tensor of a plan whose method works on blocks.

    Returns:
        passes over the inputs, and blocks that were merged twice.

    Raises:
        AlliageError: NaN or infinity in the weights; each tensor that holds some.
    """
    check_ties(plan)
    with one_torch_thread():
        merge = _BlockMerge(plan, writer, device, notify)
        passes = merge.first_passes()
        redone = merge.merge()
        merge.copy()
    return passes + 1, redone


class _BlockMerge:
    """The state that workers share."""

    def __init__(self, plan: Plan, writer: TensorWriter, device: str, notify: OnEvent) -> None:
        self.plan = plan
        self.writer = writer
        self.device = torch.device(device)
        self.notify = notify
        self.blocks = list(_cut(plan.merged, plan.block))
        self.arguments: dict[str, Any] = {
            name: torch.tensor(value, dtype=torch.float32)
            if plan.method.parameters[name].per_model
            else value
            for name, value in plan.arguments.items()
        }
        self.flaws: dict[tuple[str, str], Problem] = {}

    def first_passes(self) -> int:
        """Run the method's first pass, as often as it asks; how often that was."""
        method, plan = self.plan.method, self.plan
        if method.first_pass is None:
            return 0
        reduction = method.first_pass(len(plan.vectors), plan.numel, **self.arguments)
        for block in _spread(plan.merged, plan.numel):
            reduction.sample(self.read(block)[1])
        passes, result = 0, None
        while result is None:
            passes += 1
            stage = "first pass" if passes == 1 else f"first pass, again ({passes})"
            self._each(stage, self.blocks, lambda block: reduction.update(self.read(block)[1]))
            self._raise_flaws()
            result = reduction.result()
        self.arguments |= result
        return passes

    def merge(self) -> int:
        """Merge and write every block; how many were done twice."""
        function, make_guess = self.plan.method.function, self.plan.method.guess
        guess = make_guess(**self.arguments) if make_guess is not None else None
        arguments = self.arguments | (dict(guess.arguments) if guess is not None else {})
        doubtful: list[Block] = []

        def work(block: Block) -> None:
            base, tensors = self.read(block)
            if guess is not None and guess.update(tensors):
                doubtful.append(block)
            self.write(block, base, function(tensors, **arguments))

        self._each("merging", self.blocks, work)
        self._raise_flaws()
        if guess is None or not doubtful or guess.settled() == guess.arguments:
            return 0
        settled = self.arguments | dict(guess.settled())

        def redo(block: Block) -> None:
            base, tensors = self.read(block)
            self.write(block, base, function(tensors, **settled), again=True)

        self._each("merging, again", doubtful, redo)
        self._raise_flaws()
        return len(doubtful)

    def copy(self) -> None:
        """Write what the method does not touch."""
        base = self.plan.base
        assert base is not None
        for block in _cut(self.plan.converted, self.plan.block):
            values = base.read(block.tensor.name, block.start, block.stop).float()
            self._check(values, block.tensor.spec.file, block.tensor.name)
            self.write(block, values, None)
        for name in self.plan.copied:
            source = base.ties.get(name, name)
            spec = base.specs()[source]
            for start in range(0, spec.numel, self.plan.block):
                raw = base.read(source, start, min(start + self.plan.block, spec.numel))
                if spec.is_weight:
                    self._check(raw.float(), spec.file, source)
                self.writer.write(name, start, raw.view(torch.uint8).numpy().data.cast("B"))
        self._raise_flaws()

    def read(self, block: Block) -> tuple[Tensor, Tensor]:
        """The base's elements [m] and what the method works on [n, m], float32."""
        name, start, stop = block.tensor.name, block.start, block.stop
        plan = self.plan
        assert plan.base is not None
        base = plan.base.read(name, start, stop).float()
        self._check(base, plan.base.specs()[name].file, name)
        tensors = torch.empty(len(plan.vectors), stop - start)
        for row, vector in zip(tensors, plan.vectors, strict=True):
            if name not in vector.shapes:
                row.copy_(base) if plan.method.space == "weight" else row.zero_()
                continue
            if plan.method.space == "delta":
                row.copy_(vector.block(name, start, stop, base))
            elif isinstance(vector, TaskVector):
                row.copy_(vector.weights(name, start, stop))
            else:
                torch.add(base, vector.block(name, start, stop, base), out=row)
            self._check(row, vector.source(name).file, vector.source(name).name)
        return base.to(self.device), tensors.to(self.device)

    def write(
        self, block: Block, base: Tensor, merged: Tensor | None, *, again: bool = False
    ) -> None:
        """Round once and write, under every name that the tensor has."""
        tensor = block.tensor
        result = base
        if merged is not None:
            result = base + merged if self.plan.method.space == "delta" else merged
        stored = result.to(dtypes.torch_dtype(tensor.dtype)).cpu().contiguous()
        if not stored.isfinite().all():
            self._flaw("output", tensor.name, f"some merged values are no finite {tensor.dtype}.")
        data = stored.view(torch.uint8).numpy().data.cast("B")
        for name in (tensor.name, *tensor.copies):
            self.writer.write(name, block.start, data, again=again)

    def _check(self, values: Tensor, file: object, name: str) -> None:
        # One sum is far cheaper than a look at each element; it may also overflow by itself.
        if not values.sum().isfinite() and not values.isfinite().all():
            self._flaw(str(file), name, "holds NaN or infinity.")

    def _flaw(self, file: str, name: str, what: str) -> None:
        self.flaws.setdefault((file, name), Problem(f"{file}: {name}", what))

    def _raise_flaws(self) -> None:
        """Name the flawed inputs; the outputs they spoil only where no input is to blame."""
        inputs = [key for key in sorted(self.flaws) if key[0] != "output"]
        if self.flaws:
            raise AlliageError([self.flaws[key] for key in inputs or sorted(self.flaws)])

    def _each(self, stage: str, items: Sequence[Item], work: Callable[[Item], object]) -> None:
        for_each(items, work, self.plan.threads, lambda done: self.notify(stage, done, len(items)))


def for_each(
    items: Iterable[Item],
    work: Callable[[Item], object],
    threads: int,
    on_done: Callable[[int], None],
) -> None:
    """Call `work` on every item from some threads, in order of the items; the first error ends it.

    Unlike an executor's map it holds no more items than there are threads.
    """
    lock, waiting = threading.Lock(), iter(items)
    done, failed = 0, False

    def worker() -> None:
        nonlocal done, failed
        while not failed:
            with lock:
                item = next(waiting, _END)
            if item is _END:
                return
            try:
                work(item)  # type: ignore[arg-type]
            except BaseException:
                failed = True
                raise
            with lock:
                done += 1
                on_done(done)

    with ThreadPoolExecutor(threads, thread_name_prefix="alliage") as pool:
        running = [pool.submit(worker) for _ in range(threads)]
        try:
            for future in running:
                future.result()
        finally:
            failed = True


_END = object()


def _cut(tensors: Iterable[MergedTensor], size: int) -> Iterator[Block]:
    """Blocks of at most `size` elements."""
    for tensor in tensors:
        for start in range(0, tensor.spec.numel, size):
            yield Block(tensor, start, min(start + size, tensor.spec.numel))


def _spread(tensors: Sequence[MergedTensor], numel: int) -> Iterator[Block]:
    """Short slices at even distances over the whole vector; all of it where it is small."""
    ends = list(accumulate(tensor.spec.numel for tensor in tensors))
    count = min(SAMPLE_SLICES, -(-numel // SLICE))
    for number in range(count):
        place = number * numel // count
        index = bisect.bisect_right(ends, place)
        start = place - (ends[index - 1] if index else 0)
        stop = min(start + SLICE, tensors[index].spec.numel)
        yield Block(tensors[index], start, stop)
