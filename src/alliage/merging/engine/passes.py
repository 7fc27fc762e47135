"""First passes: statistics of whole tensors or models, before blocks are merged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from alliage.errors import AlliageError, Problem
from alliage.merging.engine.blocks import Block, cut, for_each, spread
from alliage.merging.engine.computing import Computing, NotFiniteError
from alliage.merging.planning.plan import MergedTensor, Plan
from alliage.merging.registry import FirstPass, Method, PerBlock, Sampling

OnEvent = Callable[[str, int, int], None]

MOST_PASSES = 100  # no search of a threshold takes ten


@dataclass(frozen=True, slots=True)
class Measured:
    """What a first pass found for one group of tensors.

    Attributes:
        shared: arguments of the method, the same in all blocks of the group.
        by_block: arguments with a value for each block, in the order of the group's blocks.
    """

    shared: Mapping[str, Any]
    by_block: Mapping[str, list[Any]]

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Self:
        """Sort a first pass's result."""
        by_block = {key: list(v) for key, v in result.items() if isinstance(v, PerBlock)}
        return cls({key: v for key, v in result.items() if key not in by_block}, by_block)

    def arguments(self, place: int) -> dict[str, Any]:
        """For the block at a place of the group."""
        return {**self.shared, **{key: values[place] for key, values in self.by_block.items()}}


class Statistics:
    """What first passes found for all tensors of a plan.

    Attributes:
        groups: one for each group of `Plan.groups`, in its order.
        passes: over the inputs, the most of any group.
    """

    def __init__(self, plan: Plan, size: int, groups: list[Measured], passes: int) -> None:
        self.groups = groups
        self.passes = passes
        self._size = size
        self._homes: dict[str, tuple[int, int]] = {}
        for number, group in enumerate(plan.groups()):
            place = 0
            for tensor in group:
                self._homes[tensor.name] = (number, place)
                place += len(list(_blocks([tensor], size)))

    def arguments(self, block: Block) -> dict[str, Any]:
        """What a block's method is called with, beside the tensor's own arguments."""
        home = self._homes.get(block.tensor.name)
        if home is None:
            return {}
        group, first = home
        return self.groups[group].arguments(first + block.start // self._size)

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the journal."""
        groups = [{"shared": g.shared, "by_block": g.by_block} for g in self.groups]
        return {"groups": groups, "passes": self.passes}

    @classmethod
    def from_json(cls, plan: Plan, size: int, content: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        groups = [Measured(g["shared"], g["by_block"]) for g in content["groups"]]
        return cls(plan, size, groups, content["passes"])


def measure(plan: Plan, computing: Computing, size: int, notify: OnEvent) -> Statistics:
    """Run a plan's first passes.

    One group is shared by all workers; of many, each worker takes one at a time.

    Args:
        plan: whose groups are measured.
        computing: reads their blocks.
        size: elements of a block.
        notify: told how far it is.

    Raises:
        AlliageError: NaN or infinity in an input; all that were seen.
    """
    groups = plan.groups()
    found: dict[int, tuple[Measured, int]] = {}
    if len(groups) == 1:
        found[0] = measure_group(plan, groups[0], computing, size, plan.workers, notify)
    else:

        def work(number: int) -> None:
            with contextlib.suppress(NotFiniteError):  # raised when all groups were seen
                group = groups[number]
                found[number] = measure_group(plan, group, computing, size, 1, lambda *_: None)

        for_each(
            range(len(groups)),
            work,
            plan.workers,
            lambda done: notify("first pass", done, len(groups)),
        )
    computing.raise_flaws()
    passes = max((passes for _, passes in found.values()), default=0)
    return Statistics(plan, size, [found[number][0] for number in range(len(groups))], passes)


def measure_group(
    plan: Plan,
    group: list[MergedTensor],
    computing: Computing,
    size: int,
    threads: int,
    notify: OnEvent,
) -> tuple[Measured, int]:
    """One group's result, and how many passes it took."""
    reduction = new_reduction(plan, group)
    least = 0
    if isinstance(reduction, Sampling):
        shown = reduction
        for_each(spread(group, plan.slice), lambda block: computing.sample(block, shown), threads)
        least = 1  # a small group is all in the sample
    blocks = list(enumerate(_blocks(group, size)))
    passes, result = 0, reduction.result()
    while result is None:
        passes = one_more(passes, plan.method)
        stage = "first pass" if passes == 1 else f"first pass, again ({passes})"
        for_each(
            blocks,
            lambda placed: computing.measure(placed[1], placed[0], reduction),
            threads,
            lambda done, stage=stage: notify(stage, done, len(blocks)),  # type: ignore[misc]
        )
        computing.raise_flaws()
        result = reduction.result()
    return Measured.of(result), max(passes, least)


def one_more(passes: int, method: Method) -> int:
    """Count one more pass of a method's first pass that has no result yet.

    Raises:
        AlliageError: there were so many that none will be the last.
    """
    if passes == MOST_PASSES:
        what = f"its first pass has no result after {passes} passes over all blocks."
        fix = "Mend the method: result() must return its arguments when it has seen enough."
        raise AlliageError(Problem(f"method {method.name}", what, fix))
    return passes + 1


def new_reduction(plan: Plan, group: list[MergedTensor]) -> FirstPass:
    """The method's first pass for a group."""
    make = plan.method.first_pass
    assert make is not None
    arguments = group[0].arguments
    numel = sum(tensor.spec.numel for tensor in group)
    return make(len(group[0].sources), numel, **{key: arguments[key] for key in make.reads})


def _blocks(group: list[MergedTensor], size: int) -> list[Block]:
    return [block for tensor in group for block in cut(tensor, tensor.spec.numel, size)]
