"""Running a plan: the merged checkpoint with everything that belongs to it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from alliage.checkpoints.digests import begun_early
from alliage.checkpoints.journal import JournaledFolder, discard_finished
from alliage.checkpoints.upload import destination, local_home, upload
from alliage.checkpoints.writer import TensorWriter, refuse_existing
from alliage.errors import AlliageError, Problem, TransientError, UsageError
from alliage.merging.engine.blocks import parts_of
from alliage.merging.engine.computing import computing_for
from alliage.merging.engine.distributed import Executor, await_tasks, workers
from alliage.merging.engine.factors import merge_factors, with_ranks
from alliage.merging.engine.heads import write_heads
from alliage.merging.engine.masks import write_masks
from alliage.merging.engine.papers import is_complete, write_provenance, write_settings
from alliage.merging.engine.passes import OnEvent
from alliage.merging.engine.progress import Merge, software, subject, torch_alone
from alliage.merging.engine.scales import merge_scales
from alliage.merging.engine.ties_check import check_ties
from alliage.merging.planning.plan import Plan


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
            uploaded when it is complete, and kept for `resume` where that fails.
        device: where blocks are computed: "cpu" or "cuda".
        executor: who computes them: threads of this process, or the tasks of a "ray" cluster whose
            nodes reach the output's folder, and the inputs, by the same paths.
        ray_address: of that cluster, see `distributed.cluster`.
        resume: go on where an interrupted run to `out` ended, if there was one; an `out` that is
            complete already is left as it is.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: `out` exists, another process is writing it, or an interrupted run was left
            there that this one does not go on with.
        AlliageError: the plan has problems, or the inputs hold NaN or infinity: all of them.
        TransientError: the cluster lost a task, or one of its nodes cannot take part.
    """
    plan.raise_problems()
    notify = on_event or (lambda *_: None)
    begun = workers(executor, ray_address, device)
    place = destination(out)
    if isinstance(place, Path):
        return _run(plan, place, device, begun, resume, notify)
    url, home = str(out), local_home(str(place))
    if home.exists() and not resume:
        what = f"what was made for it and could not be uploaded lies in {home}."
        fix = "Upload it with --resume (resume=True), or remove that folder."
        raise UsageError(Problem(url, what, fix))
    if home.exists() and not is_complete(plan, home):
        what = f"what was made for {url} of another recipe or other inputs lies here."
        fix = "Upload it by that recipe with --resume (resume=True), or remove this folder."
        raise UsageError(Problem(str(home), what, fix))
    if home.exists():
        record = RunRecord(url, 0.0, plan.bytes_to_write, 0, 0, 0)
    else:
        record = _run(plan, home, device, begun, resume, notify)
    notify("uploading", 0, 1)
    try:
        upload(home, url, resume=resume)
    except AlliageError as error:
        fix = "Upload it with --resume (resume=True), or remove that folder."
        kept = Problem(str(home), "the finished output is kept here.", fix)
        raise type(error)([*error.problems, kept]) from error
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
    if resume and is_complete(plan, out):  # killed after the end, or asked for once more
        discard_finished(out)
        seconds = time.perf_counter() - started
        return RunRecord(out, seconds, plan.bytes_to_write, 0, 0, len(parts_of(plan, plan.block)))
    refuse_existing(out)  # before anything is measured
    plan = with_ranks(plan, notify)
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
            await_tasks(folder.staging, plan.layout)
        with TensorWriter(folder.staging, plan.layout, resume=True) as writer:
            if plan.makes_adapter:
                merge_adapter = merge_factors if plan.method.unit == "factors" else merge_scales
                merge_adapter(plan, writer, notify)
                passes, redone, kept = 1, 0, 0
            else:
                if not again:
                    check_ties(plan)
                plan = _within_memory(plan, folder)
                computing = computing_for(plan, writer, device)
                with torch_alone(computing):
                    merge = begin(plan, computing, writer, folder, notify)
                    merge.first_passes()
                    merge.parts()
                    merge.guessed()
                passes, redone, kept = merge.passes, merge.redone, merge.kept
        write_heads(plan, folder)
        write_masks(plan, folder, notify)
        write_settings(plan, folder)
        if plan.tokenizer is not None:
            folder.add_companions(plan.tokenizer)
        write_provenance(plan, folder, notify)
    seconds = time.perf_counter() - started
    return RunRecord(out, seconds, plan.bytes_to_write, passes, redone, kept)


def _journaled(plan: Plan, out: Path, device: str, resume: bool) -> JournaledFolder:
    """The output's folder; only what computes the same bytes goes on with an interrupted run."""
    what = {**subject(plan), "made by": {"device": device, **software()}}
    return JournaledFolder(out, what, {"block": plan.block}, resume=resume)


def _within_memory(plan: Plan, folder: JournaledFolder) -> Plan:
    """The plan with as few workers as its memory is enough for, in blocks as they were begun.

    Raises:
        TransientError: it is too little for one of them.
    """
    block: int = folder.choices["block"]
    if plan.method.unit == "tensor" or block <= plan.block:
        return plan
    measured = any("statistics" in entry for entry in folder.entries)
    fitting = plan.fitting_workers(block, measured=measured)
    if not fitting:
        least = plan.memory_for(1, block, measured=measured)
        what = f"{plan.memory / 2**20:.1f} MiB are too little for the blocks of the interrupted run"
        raise TransientError(
            Problem("memory", f"{what}.", f"Give at least {least / 2**20:.1f} MiB.")
        )
    return replace(plan, threads=fitting)


@contextlib.contextmanager
def _hashed_early(plan: Plan) -> Iterator[None]:
    """Hash the inputs beside the merge, where there is more than one thread."""
    if plan.threads == 1 or plan.base is None:
        yield
        return
    with begun_early(dict.fromkeys(file for c in plan.checkpoints for file in c.weight_files)):
        yield
