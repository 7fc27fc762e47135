"""Running a plan: the merged checkpoint with everything that belongs to it."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import alliage
from alliage.checkpoints.digests import begun_early
from alliage.checkpoints.journal import JournaledFolder
from alliage.checkpoints.remote import is_url
from alliage.checkpoints.upload import local_home, upload
from alliage.checkpoints.writer import TensorWriter
from alliage.errors import Problem, UsageError
from alliage.merging.blocks import Block, PartSeen, for_each, parts_of
from alliage.merging.computing import Computing, computing_for
from alliage.merging.factors import merge_factors
from alliage.merging.heads import write_heads
from alliage.merging.papers import write_provenance, write_settings
from alliage.merging.passes import Statistics, measure
from alliage.merging.plan import Plan
from alliage.merging.ties_check import check_ties

OnEvent = Callable[[str, int, int], None]
Executor = Literal["local", "ray"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run did.

    Attributes:
        out: the new checkpoint.
        seconds: of the whole run.
        bytes_written: of weights.
        passes: over all blocks: first passes and the merge.
        blocks_redone: blocks merged again because a guess did not hold.
        parts_kept: parts of the output that an interrupted run had finished.
    """

    out: Path | str
    seconds: float
    bytes_written: int
    passes: int
    blocks_redone: int
    parts_kept: int


def run(
    plan: Plan,
    out: str | Path,
    *,
    device: str = "cpu",
    executor: Executor = "local",
    ray_address: str | None = None,
    resume: bool = False,
    on_event: OnEvent | None = None,
) -> RunRecord:
    """Write the merged checkpoint; it appears under `out` when complete and not before.

    The same plan on the same inputs writes the same bytes, whatever the threads and the memory, and
    however often the run was interrupted.

    Args:
        plan: without problems.
        out: a path that does not exist, or a URL where nothing lies: what is made for it here is
            uploaded when it is complete.
        device: where blocks are computed: "cpu" or "cuda".
        executor: who computes them: threads of this process, or the tasks of a "ray" cluster whose
            nodes reach the output's folder, and the inputs, by the same paths.
        ray_address: of that cluster, see `distributed.cluster`.
        resume: go on where an interrupted run to `out` ended, if there was one.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: `out` exists, another process is writing it, or an interrupted run was left
            there that this one does not go on with.
        AlliageError: the plan has problems, or the inputs hold NaN or infinity: all of them.
        TransientError: the cluster lost a task, or one of its nodes cannot take part.
    """
    plan.raise_problems()
    notify = on_event or (lambda *_: None)
    # Not above: it builds upon this module.
    from alliage.merging.distributed import workers

    begun = workers(executor, ray_address, device)
    if not is_url(out):
        return _run(plan, Path(out), device, begun, resume, notify)
    url, home = str(out), local_home(str(out))
    if home.exists() and not resume:
        what = f"what was made for it and could not be uploaded lies in {home}."
        fix = "Upload it with --resume (resume=True), or remove that folder."
        raise UsageError(Problem(url, what, fix))
    if home.exists():
        record = RunRecord(url, 0.0, plan.bytes_to_write, 0, 0, 0)
    else:
        record = _run(plan, home, device, begun, resume, notify)
    notify("uploading", 0, 1)
    upload(home, url)
    notify("uploading", 1, 1)
    shutil.rmtree(home.parent)
    return replace(record, out=url)


def _run(
    plan: Plan,
    out: Path,
    device: str,
    begun: contextlib.AbstractContextManager[Callable[..., Merge]],
    resume: bool,
    notify: OnEvent,
) -> RunRecord:
    started = time.perf_counter()
    assert plan.base is not None
    assert plan.layout is not None
    with (
        begun as begin,
        _hashed_early(plan),
        _journaled(plan, out, device, resume) as folder,
    ):
        again = bool(folder.entries)
        if again and not plan.layout.fills(folder.staging):
            what = "files of the interrupted run are gone or cut off: what was left is removed."
            raise UsageError(Problem(str(out), what, "Run it again from the start."))
        if again:
            from alliage.merging.distributed import await_tasks

            await_tasks(folder.staging, plan.layout)
        with TensorWriter(folder.staging, plan.layout, resume=True) as writer:
            if plan.method.unit == "factors":
                merge_factors(plan, writer, notify)
                passes, redone, kept = 1, 0, 0
            else:
                if not again:
                    check_ties(plan)
                computing = computing_for(plan, writer, device)
                with torch_alone(computing):
                    merge = begin(plan, computing, writer, folder, notify)
                    merge.first_passes()
                    merge.parts()
                    merge.guessed()
                passes, redone, kept = merge.passes, merge.redone, merge.kept
        write_heads(plan, folder)
        write_settings(plan, folder)
        if plan.tokenizer is not None:
            folder.add_companions(plan.tokenizer)
        write_provenance(plan, folder, notify)
    seconds = time.perf_counter() - started
    return RunRecord(out, seconds, plan.bytes_to_write, passes, redone, kept)


class Merge:
    """A merge by blocks on its way, from what the journal knows to the complete output."""

    def __init__(
        self,
        plan: Plan,
        computing: Computing,
        writer: TensorWriter,
        folder: JournaledFolder,
        notify: OnEvent,
    ) -> None:
        self.plan, self.computing, self.writer = plan, computing, writer
        self.folder, self.notify = folder, notify
        known: dict[str, Any] = {}
        self.done: dict[int, dict[str, Any]] = {}
        self.settled_parts: set[int] = set()
        for entry in folder.entries:
            if "part" in entry:
                self.done[entry["part"]] = entry
            elif "settled" in entry:
                self.settled_parts.add(entry["settled"])
            else:
                known |= entry
        # Blocks are cut as they were begun, whatever the memory is now.
        self.size: int = folder.choices["block"]
        self.kept = len(self.done)
        self.redone = 0
        self.cut = parts_of(plan, self.size)
        self.statistics: Statistics | None = (
            Statistics.from_json(plan, self.size, known["statistics"])
            if "statistics" in known
            else None
        )

    @property
    def passes(self) -> int:
        """Over the inputs."""
        return 1 + (self.statistics.passes if self.statistics is not None else 0)

    def first_passes(self) -> None:
        """Measure what the method needs to know of whole tensors or models."""
        if self.plan.method.first_pass is None or self.statistics is not None:
            return
        self.statistics = self._measure()
        self.folder.add({"statistics": self.statistics.to_json()})

    def _measure(self) -> Statistics:
        return measure(self.plan, self.computing, self.size, self.notify)

    def parts(self) -> None:
        """Merge, convert and copy every part that is not done yet."""
        waiting = [part for part in self.cut if part.number not in self.done]
        for number in self.done:
            self.writer.skip(self.cut[number].nbytes)
        seen = {part.number: PartSeen(part) for part in waiting}
        blocks = [(part.number, place) for part in waiting for place in range(len(part.blocks))]

        with self._journaling() as finish:

            def work(item: tuple[int, int]) -> None:
                number, place = item
                part = seen[number]
                guessed = part.guess(self._guess)
                block = part.part.blocks[place]
                found = self.computing.compute(block, self.given(block, guessed))
                if part.add(place, found.count, found.depends):
                    self.done[number] = part.entry()
                    finish(part)

            self._each("merging", blocks, work)
            # Parts with flaws must not be taken for done.
            self.computing.raise_flaws()

    def _guess(self) -> dict[str, Any]:
        """The best guess so far: what all parts together would settle, if they were all."""
        guess = self.plan.method.guess
        if guess is None:
            return {}
        count = sum(entry["count"] for entry in list(self.done.values()))
        return dict(guess.settle(count) if count else guess.guessed)

    def guessed(self) -> None:
        """Merge the blocks again that depended on a guess, where it was wrong."""
        guess = self.plan.method.guess
        if guess is None:
            return
        settled = guess.settle(sum(entry["count"] for entry in self.done.values()))
        doubtful = {
            number: entry["doubtful"]
            for number, entry in self.done.items()
            if entry["doubtful"] and entry["guessed"] != settled
        }
        waiting = [number for number in sorted(doubtful) if number not in self.settled_parts]
        self.redone = sum(map(len, doubtful.values()))
        again = {
            number: [self.cut[number].blocks[place] for place in doubtful[number]]
            for number in waiting
        }
        self._again(again, settled)
        self.computing.raise_flaws()
        self.writer.sync()
        for number in waiting:
            self.folder.add({"settled": number})

    def _again(self, parts: Mapping[int, list[Block]], settled: Mapping[str, Any]) -> None:
        def work(number: int) -> None:
            for block in parts[number]:
                self.computing.compute(block, self.given(block, settled), again=True)

        self._each("merging, again", list(parts), work)

    def given(self, block: Block, guessed: Mapping[str, Any]) -> dict[str, Any]:
        """What a block is merged with, beside its tensor's own arguments."""
        measured = self.statistics.arguments(block) if self.statistics is not None else {}
        return {**measured, **guessed}

    @contextlib.contextmanager
    def _journaling(self) -> Iterator[Callable[[PartSeen], None]]:
        """Sync finished parts and write them down, beside the workers."""
        finished: queue.SimpleQueue[PartSeen | None] = queue.SimpleQueue()
        failures: list[BaseException] = []

        def keep() -> None:
            ending = False
            while not ending:
                parts = [finished.get()]
                while not finished.empty():
                    parts.append(finished.get())
                ending = None in parts
                if failures:  # what a failed sync lost, the next one does not bring back
                    continue
                try:
                    self.writer.sync()
                    if not self.computing.flaws:
                        for part in parts:
                            if part is not None:
                                self.folder.add(part.entry())
                except BaseException as error:
                    failures.append(error)

        def finish(part: PartSeen) -> None:
            if failures:
                raise failures[0]
            finished.put(part)

        keeper = threading.Thread(target=keep, name="alliage-journal", daemon=True)
        keeper.start()
        try:
            yield finish
        finally:
            finished.put(None)
            keeper.join()
        if failures:
            raise failures[0]

    def _each(self, stage: str, items: list[Any], work: Callable[[Any], object]) -> None:
        total = len(items)
        for_each(items, work, self.plan.workers, lambda done: self.notify(stage, done, total))


def subject(plan: Plan) -> dict[str, Any]:
    """What makes two runs the same: the recipe, the inputs as they are now, the output's form."""
    assert plan.base is not None
    assert plan.layout is not None
    checkpoints = [plan.base, *(c for vector in plan.vectors for c in vector.checkpoints)]
    inputs = {file: v for checkpoint in checkpoints for file, v in checkpoint.versions.items()}
    return {
        "recipe": plan.recipe.model_dump(mode="json", exclude_none=True),
        "inputs": inputs,
        "output": {name: header.hex() for name, header in plan.layout.headers.items()},
    }


def software() -> dict[str, str]:
    """The versions of what decides the last bits."""
    packages = {name: version(name) for name in ("numba", "numpy", "torch")}
    return {"alliage": alliage.__version__, **packages}


def _journaled(plan: Plan, out: Path, device: str, resume: bool) -> JournaledFolder:
    """The output's folder; only what computes the same bytes goes on with an interrupted run."""
    what = {**subject(plan), "made by": {"device": device, **software()}}
    return JournaledFolder(out, what, {"block": plan.block}, resume=resume)


@contextlib.contextmanager
def _hashed_early(plan: Plan) -> Iterator[None]:
    """Hash the inputs beside the merge, where there is more than one thread."""
    if plan.threads == 1 or plan.base is None:
        yield
        return
    checkpoints = [plan.base, *(c for vector in plan.vectors for c in vector.checkpoints)]
    with begun_early(dict.fromkeys(file for c in checkpoints for file in c.weight_files)):
        yield


@contextlib.contextmanager
def torch_alone(computing: Computing) -> Iterator[None]:
    """Keep torch, where it is used, to one thread for each worker."""
    from alliage.merging.computing import TorchComputing

    if not isinstance(computing, TorchComputing):
        yield
        return
    from alliage.threads import one_torch_thread

    with one_torch_thread():
        yield
