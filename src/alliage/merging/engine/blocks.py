"""What a merge is cut into: blocks to compute, parts to remember, and workers that take them."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from alliage.merging.planning.plan import BLOCK, SAMPLE, Copied, MergedTensor, Plan

Item = TypeVar("Item")

_PART_BYTES = 64 * 2**20  # what a killed run loses at most, for each worker
_LEAST_PART_BYTES = 4 * 2**20  # of outputs too small for many parts of that size
_PARTS = 64


class Block(NamedTuple):
    """Elements [start, stop) of one tensor of the output."""

    tensor: MergedTensor | Copied
    start: int
    stop: int


class Part(NamedTuple):
    """Neighbouring blocks that the journal speaks of as one.

    Attributes:
        number: its place in the output.
        blocks: to be computed or copied.
        nbytes: written when all are done.
    """

    number: int
    blocks: list[Block]
    nbytes: int


class PartSeen:
    """What was seen of a part so far; blocks may come in any order."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._count = 0
        self._left = len(part.blocks)
        self._doubtful: list[int] = []
        self._guessed: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def guess(self, best: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What all blocks of the part are merged with: the best guess when it was begun."""
        with self._lock:
            if self._guessed is None:
                self._guessed = best()
            return self._guessed

    def add(self, place: int, count: int, depends: bool) -> bool:
        """Add a block; whether it was the last one."""
        with self._lock:
            self._count += count
            self._left -= 1
            if depends:
                self._doubtful.append(place)
            return self._left == 0

    def entry(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "part": self.part.number,
            "count": self._count,
            "doubtful": sorted(self._doubtful),
            "guessed": self._guessed,
        }


def cut(tensor: MergedTensor | Copied, numel: int, size: int) -> Iterator[Block]:
    """Blocks of at most `size` elements; one empty block for an empty tensor."""
    for start in range(0, max(numel, 1), size):
        yield Block(tensor, start, min(start + size, numel))


def parts_of(plan: Plan, size: int) -> list[Part]:
    """The whole output in the order of its files, so that they are written from start to end."""
    assert plan.layout is not None
    assert plan.base is not None
    specs = plan.base.specs()
    tensors: dict[str, MergedTensor | Copied] = {t.name: t for t in (*plan.merged, *plan.converted)}
    tensors |= {copied.name: copied for copied in plan.copied}
    enough = min(_PART_BYTES, max(_LEAST_PART_BYTES, plan.layout.nbytes // _PARTS))
    parts: list[Part] = []
    blocks: list[Block] = []
    filled = 0
    for output in (spec for shard in plan.layout.shards.values() for spec in shard):
        tensor = tensors.get(output.name)
        if tensor is None:  # a tied copy: written with its original
            continue
        merged = isinstance(tensor, MergedTensor)
        numel = (
            tensor.spec.numel if isinstance(tensor, MergedTensor) else specs[tensor.source].numel
        )
        whole = merged and plan.method.unit == "tensor"
        names = 1 + (len(tensor.copies) if isinstance(tensor, MergedTensor) else 0)
        each = output.nbytes // max(output.numel, 1) * names
        for block in cut(tensor, numel, max(numel, 1) if whole else size):
            blocks.append(block)
            filled += (block.stop - block.start) * each
            if filled >= enough:
                parts.append(Part(len(parts), blocks, filled))
                blocks, filled = [], 0
    if blocks:
        parts.append(Part(len(parts), blocks, filled))
    return parts


def spread(tensors: Sequence[MergedTensor], size: int) -> Iterator[Block]:
    """Slices of `size` elements at even distances over some tensors; all where they are small."""
    ends = list(accumulate(tensor.spec.numel for tensor in tensors))
    numel = ends[-1]
    if numel <= SAMPLE:
        for tensor in tensors:
            yield from cut(tensor, tensor.spec.numel, BLOCK)
        return
    count = SAMPLE // size
    for number in range(count):
        place = number * numel // count
        index = bisect.bisect_right(ends, place)
        start = place - (ends[index - 1] if index else 0)
        yield Block(tensors[index], start, min(start + size, tensors[index].spec.numel))


def for_each(
    items: Iterable[Item],
    work: Callable[[Item], object],
    threads: int,
    on_done: Callable[[int], None] = lambda _: None,
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
