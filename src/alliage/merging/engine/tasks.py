"""What runs in the worker processes of a cluster: blocks of a plan that is made again there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from alliage.checkpoints.writer import Layout, TensorWriter
from alliage.errors import AlliageError, Problem, TransientError
from alliage.merging.engine.blocks import Block
from alliage.merging.engine.computing import NotFiniteError, computing_for
from alliage.merging.engine.passes import Measured, measure_group
from alliage.merging.engine.progress import software, subject, torch_alone
from alliage.merging.planning.plan import Copied, MergedTensor
from alliage.merging.planning.planner import plan
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import FirstPass, Sampling


class Piece(NamedTuple):
    """A block, as it is sent."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process needs to know of a merge.

    Attributes:
        key: tells jobs from each other.
        recipe, memory, shard_bytes: what is planned again, for one thread.
        size: elements of a block.
        subject: what the plan must come to, see `engine.progress.subject`.
        software: versions that decide the last bits.
        working: the driver's folder, from which relative paths count.
        staging: where the output's files are.
    """

    key: str
    recipe: MergeRecipe = field(compare=False)
    memory: int = field(compare=False)
    shard_bytes: int = field(compare=False)
    size: int = field(compare=False)
    subject: Mapping[str, Any] = field(compare=False)
    software: Mapping[str, str] = field(compare=False)
    working: str = field(compare=False)
    staging: Path = field(compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a task returns; errors are values, so that none is lost on the way.

    Attributes:
        found: the result.
        flaws: as `Computing.flaws`.
        error: the kind of another error that ended it, or nothing.
        problems: of that error.
    """

    found: Any = None
    flaws: Mapping[tuple[str, str], Problem] = field(default_factory=dict)
    error: type[AlliageError] | None = None
    problems: tuple[Problem, ...] = ()


def locked_file(staging: Path, layout: Layout) -> Path:
    """The file of an output that tasks hold a lock on while they write."""
    return staging / next(iter(layout.shards))


class _Session:
    """The plan as a worker process has made it again, with the output's files open."""

    def __init__(self, job: Job) -> None:
        """Plan, and see that it came to the same.

        Raises:
            TransientError: it did not, or the output's files are not there.
        """
        _compare("versions", software(), job.software)
        self.plan = plan(job.recipe, memory=job.memory, threads=1, shard_bytes=job.shard_bytes)
        if self.plan.problems:
            raise TransientError(
                [_on_this_node(f"{each.where}: {each.what}") for each in self.plan.problems]
            )
        found = subject(self.plan)
        for part in ("inputs", "output", "plug-ins"):
            _compare(part, found[part], job.subject[part])
        assert self.plan.layout is not None
        if not self.plan.layout.fills(job.staging):
            what = f"{job.staging} is not the driver's: all nodes must reach the output."
            raise TransientError(_on_this_node(what))
        self.size = job.size
        self.writer = TensorWriter(job.staging, self.plan.layout, made=True)
        self.lock = os.open(locked_file(job.staging, self.plan.layout), os.O_RDONLY)
        weakref.finalize(self, _close, self.writer, self.lock)
        self.computing = computing_for(self.plan, self.writer)
        self._tensors: dict[str, MergedTensor | Copied] = {
            tensor.name: tensor for tensor in (*self.plan.merged, *self.plan.converted)
        }
        self._tensors |= {copied.name: copied for copied in self.plan.copied}

    def group(self, names: Iterable[str]) -> list[MergedTensor]:
        """Merged tensors by their names."""
        found = (self._tensors[name] for name in names)
        return [tensor for tensor in found if isinstance(tensor, MergedTensor)]

    def block(self, piece: Piece) -> Block:
        """A block by what was sent of it."""
        return Block(self._tensors[piece.name], piece.start, piece.stop)


def _close(writer: TensorWriter, lock: int) -> None:
    writer.close()
    os.close(lock)


def _compare(what: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    differing = sorted(key for key in {**here, **there} if here.get(key) != there.get(key))
    if differing:
        named = ", ".join(differing[:4])
        raise TransientError(_on_this_node(f"other {what} than in the driver: {named}."))


def _on_this_node(what: str) -> Problem:
    return Problem(f"node {platform.node()} of the cluster", what)


_session = lru_cache(maxsize=1)(_Session)  # a worker process serves one merge after the other


def work(job: Job, kind: Callable[..., Any], *arguments: Any) -> Answer:
    """One task: `kind` called with the process's session."""
    flaws: dict[tuple[str, str], Problem] = {}
    try:
        with _in_folder(job.working):
            session = _session(job)
            flaws = session.computing.flaws
            flaws.clear()
            fcntl.flock(session.lock, fcntl.LOCK_SH)
            try:
                with torch_alone(session.computing):
                    return Answer(kind(session, *arguments), flaws)
            finally:
                fcntl.flock(session.lock, fcntl.LOCK_UN)
    except AlliageError as error:
        return Answer(flaws=flaws, error=type(error), problems=error.problems)


@contextlib.contextmanager
def _in_folder(path: str) -> Iterator[None]:
    """Let relative paths count from the driver's folder."""
    before = Path.cwd()
    try:
        os.chdir(path)
    except OSError as error:
        raise TransientError(_on_this_node(f"{path}: {error.strerror}.")) from None
    try:
        yield
    finally:
        os.chdir(before)


def sample(session: _Session, reduction: Sampling, pieces: list[Piece]) -> Sampling:
    """Show a first pass slices; what it has seen."""
    for piece in pieces:
        session.computing.sample(session.block(piece), reduction)
    return reduction


def measure(session: _Session, reduction: FirstPass, first: int, pieces: list[Piece]) -> FirstPass:
    """Show a first pass blocks, the first of them at a place in its group; what it has seen."""
    for place, piece in enumerate(pieces, start=first):
        session.computing.measure(session.block(piece), place, reduction)
    return reduction


def measure_groups(session: _Session, groups: list[list[str]]) -> list[tuple[Measured, int]]:
    """The results of whole groups, named by their tensors, as `passes.measure_group`."""
    found = []
    for names in groups:
        group = session.group(names)
        with contextlib.suppress(NotFiniteError):  # raised when all groups were seen
            found.append(
                measure_group(
                    session.plan, group, session.computing, session.size, 1, lambda *_: None
                )
            )
    return found


def merge(
    session: _Session, pieces: list[Piece], given: list[dict[str, Any]], again: bool
) -> list[tuple[int, bool]]:
    """Write blocks durably; of each, what it counts for a guess and whether it depends on one."""
    seen = [
        session.computing.compute(session.block(piece), arguments, again=again)
        for piece, arguments in zip(pieces, given, strict=True)
    ]
    session.writer.sync()
    return [(each.count, each.depends) for each in seen]
