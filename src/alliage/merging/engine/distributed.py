"""One plan's parts over a Ray cluster: the same bytes as on one machine.

The driver plans, keeps the journal and makes the output's files. Tasks are told names and ranges;
they open the inputs themselves and write their blocks in place. So all nodes must reach the
output's folder by the same path, and the inputs by theirs or by their URLs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from alliage.checkpoints.writer import Layout
from alliage.errors import Problem, TransientError, UsageError
from alliage.merging.engine import tasks
from alliage.merging.engine.blocks import Block, PartSeen, cut, spread
from alliage.merging.engine.passes import Measured, Statistics, new_reduction, one_more
from alliage.merging.engine.progress import Merge, software, subject
from alliage.merging.engine.tasks import Answer, Job, Piece, locked_file
from alliage.merging.planning.plan import MergedTensor

Item = TypeVar("Item")
Executor = Literal["local", "ray"]

_RUN = 2**25  # elements of a vector that one task of a first pass looks at
_SAMPLED_RUN = 2**17
_AHEAD = 2  # tasks waiting or running, for each core
_PATIENCE = 60.0  # seconds for a cluster to answer, and for tasks of a dead driver to end
_LOOK = 0.05  # seconds between looks whether they have


@runtime_checkable
class Divisible(Protocol):
    """A first pass that several processes may share the blocks of."""

    def fork(self) -> Self:
        """One to be pickled, that looks for the same and has seen nothing."""

    def absorb(self, other: Self) -> None:
        """Add what a fork has seen."""


@contextlib.contextmanager
def workers(executor: Executor, address: str | None, device: str) -> Iterator[Callable[..., Merge]]:
    """What begins a merge, of the arguments of `Merge`: in this process, or on a cluster.

    Raises:
        UsageError: there is no such executor, or no cluster at the address (see `cluster`).
    """
    if executor == "local":
        yield Merge
        return
    if executor != "ray" or device != "cpu":
        what = f"expected local, or ray with device cpu; got {executor} with {device}."
        raise UsageError(Problem("executor", what))
    with cluster(address) as ray:
        yield partial(RayMerge, ray)


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The module ray, connected.

    Args:
        address: of a cluster; by default RAY_ADDRESS, a cluster on this machine, or a new one here
            for as long as the context lasts. Not asked where ray is connected already.

    Raises:
        UsageError: ray is not installed, or no cluster answers there.
    """
    try:
        ray = import_module("ray")
    except ModuleNotFoundError:
        what = "needs ray, which is not installed."
        fix = 'Install it: pip install "alliage[ray]"'
        raise UsageError(Problem("executor ray", what, fix)) from None
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a merge tells nobody
    try:
        _knock(address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        where = address or os.environ.get("RAY_ADDRESS", "a Ray cluster")
        what = f"cannot be reached: {str(error).strip().splitlines()[0]}"
        raise UsageError(Problem(where, what, "Give --ray-address HOST:PORT.")) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See whether anybody listens at HOST:PORT; ray itself would try for many minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE).close()


def await_tasks(staging: Path, layout: Layout) -> None:
    """Wait until no task writes to an output any more.

    A killed driver's tasks may outlive it for a moment, and one that Ray took for lost may still be
    at work: what they write late would undo what was merged again since. Each holds a lock on the
    first file while it writes.

    Raises:
        TransientError: they do not end.
    """
    file = locked_file(staging, layout)
    fd = os.open(file, os.O_RDWR)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    what = "tasks of an interrupted run are still writing to it."
                    fix = "Go on with it when they have ended."
                    raise TransientError(Problem(str(file), what, fix)) from None
            time.sleep(_LOOK)
    finally:
        os.close(fd)


class RayMerge(Merge):
    """A merge whose blocks are computed by the tasks of a Ray cluster."""

    def __init__(self, ray: Any, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ray = ray
        job = Job(
            uuid.uuid4().hex,
            self.plan.recipe,
            self.plan.memory,
            self.plan.shard_bytes,
            self.size,
            subject(self.plan),
            software(),
            str(Path.cwd()),
            self.folder.staging.absolute(),
        )
        self._job = ray.put(job)
        # Ray lets no more tasks onto a node than its memory holds.
        memory = replace(self.plan, threads=1).working_memory
        self._task = ray.remote(num_cpus=1, memory=memory, max_retries=3)(tasks.work)

    def _measure(self) -> Statistics:
        groups = self.plan.groups()
        if len(groups) == 1 and isinstance(new_reduction(self.plan, groups[0]), Divisible):
            found = [self._measure_divided(groups[0])]
        else:
            found = self._measure_groups(groups)
        self.computing.raise_flaws()
        passes = max((passes for _, passes in found), default=0)
        return Statistics(self.plan, self.size, [measured for measured, _ in found], passes)

    def _measure_groups(self, groups: list[list[MergedTensor]]) -> list[tuple[Measured, int]]:
        """Each group in one task, small ones together."""
        found: dict[int, tuple[Measured, int]] = {}
        runs = _runs(range(len(groups)), lambda n: sum(t.spec.numel for t in groups[n]), _RUN)
        calls = [
            (tasks.measure_groups, [[tensor.name for tensor in groups[n]] for n in run])
            for run in runs
        ]
        self._spread(
            "first pass",
            calls,
            list(map(len, runs)),
            # Fewer results are there where flaws were found, which are raised below.
            lambda run, measured: found.update(zip(runs[run], measured, strict=False)),
        )
        self.computing.raise_flaws()
        return [found[number] for number in range(len(groups))]

    def _measure_divided(self, group: list[MergedTensor]) -> tuple[Measured, int]:
        """A group whose blocks are shared by many tasks, as `passes.measure_group`."""
        reduction: Any = new_reduction(self.plan, group)
        runs = _runs(list(spread(group, self.plan.slice)), _numel, _SAMPLED_RUN)
        samples: dict[int, Any] = {}
        fork = self._ray.put(reduction.fork())
        calls = [(tasks.sample, fork, _pieces(run)) for run in runs]
        self._spread("sampling", calls, list(map(len, runs)), samples.__setitem__)
        for run in range(len(runs)):
            reduction.absorb(samples[run])
        blocks = [b for tensor in group for b in cut(tensor, tensor.spec.numel, self.size)]
        placed = _runs(list(enumerate(blocks)), lambda item: _numel(item[1]), _RUN)
        passes, result = 0, reduction.result()
        while result is None:
            passes = one_more(passes, self.plan.method)
            fork = self._ray.put(reduction.fork())
            self._spread(
                "first pass" if passes == 1 else f"first pass, again ({passes})",
                [(tasks.measure, fork, run[0][0], _pieces(b for _, b in run)) for run in placed],
                list(map(len, placed)),
                lambda _, seen: reduction.absorb(seen),
            )
            self.computing.raise_flaws()
            result = reduction.result()
        return Measured.of(result), max(passes, 1)

    def parts(self) -> None:
        """Merge, convert and copy every part that is not done yet."""
        waiting = [part for part in self.cut if part.number not in self.done]
        for number in self.done:
            self.writer.skip(self.cut[number].nbytes)
        seen = [PartSeen(part) for part in waiting]

        def call(part: PartSeen) -> tuple[Any, ...]:
            guessed = part.guess(self._guess)  # when it is sent: by then more is known
            return (
                tasks.merge,
                _pieces(part.part.blocks),
                self._given(part.part.blocks, guessed),
                False,
            )

        def take(number: int, found: list[tuple[int, bool]]) -> None:
            part = seen[number]
            for place, (count, depends) in enumerate(found):
                part.add(place, count, depends)
            self.done[part.part.number] = part.entry()
            self.writer.skip(part.part.nbytes)
            if not self.computing.flaws:
                self.folder.add(part.entry())

        self._spread("merging", map(call, seen), [len(p.blocks) for p in waiting], take)
        self.computing.raise_flaws()

    def _again(self, parts: Mapping[int, list[Block]], settled: Mapping[str, Any]) -> None:
        assert self.plan.layout is not None
        await_tasks(self.folder.staging, self.plan.layout)
        calls = [
            (tasks.merge, _pieces(blocks), self._given(blocks, settled), True)
            for blocks in parts.values()
        ]
        self._spread("merging, again", calls, [1] * len(calls), lambda *_: None)

    def _given(self, blocks: Iterable[Block], guessed: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self.given(block, guessed) for block in blocks]

    def _spread(
        self,
        stage: str,
        calls: Iterable[tuple[Any, ...]],
        weights: Sequence[int],
        take: Callable[[int, Any], object],
    ) -> None:
        """Send calls, a few more at once than there are cores; `take` their results as they come.

        Flaws are gathered for whoever ends the stage.

        Raises:
            AlliageError: something else is wrong, as the task has found.
            TransientError: a node cannot take part, or a task lost its workers too often.
            OSError: as in the task.
        """
        ray, waiting = self._ray, enumerate(calls)
        running: dict[Any, int] = {}
        done, total, left = 0, sum(weights), True
        try:
            while running or left:
                cores = int(ray.cluster_resources().get("CPU", 1))
                while left and len(running) < _AHEAD * max(1, cores):
                    number, call = next(waiting, (-1, ()))
                    left = number >= 0
                    if left:
                        running[self._task.remote(self._job, *call)] = number
                for ready in ray.wait(list(running), num_returns=1)[0] if running else ():
                    number = running.pop(ready)
                    take(number, self._received(ready))
                    done += weights[number]
                    self.notify(stage, done, total)
        finally:
            for ready in running:
                ray.cancel(ready, force=True)

    def _received(self, ready: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(ready)
        except exceptions.RayTaskError as error:
            raise error.cause from None
        except exceptions.RayError as error:
            what = f"lost a task: {str(error).splitlines()[0]}"
            raise TransientError(Problem("the Ray cluster", what)) from None
        if answer.error is not None:
            raise answer.error(answer.problems)
        self.computing.flaws.update(answer.flaws)
        return answer.found


def _runs(items: Sequence[Item], numel: Callable[[Item], int], limit: int) -> list[list[Item]]:
    """Neighbours together, until they have `limit` elements."""
    runs: list[list[Item]] = []
    filled = limit
    for item in items:
        if filled >= limit:
            runs.append([])
            filled = 0
        runs[-1].append(item)
        filled += numel(item)
    return runs


def _numel(block: Block) -> int:
    return block.stop - block.start


def _pieces(blocks: Iterable[Block]) -> list[Piece]:
    return [Piece(block.tensor.name, block.start, block.stop) for block in blocks]
