"""A task of a merged model, and what it is rebuilt from: masks, the merged weights, the base."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.digests import sha256
from alliage.checkpoints.masks import FOLDER, MaskFile
from alliage.errors import AlliageError, Problem, UsageError, nearest
from alliage.merging.engine.heads import folder_name


def task_file(merged: str | Path, task: str) -> str:
    """Where a task's masks lie in a merged model's folder.

    Raises:
        UsageError: the folder holds no masks, or none of that task; with the nearest names.
    """
    with open_checkpoint(merged) as opened:
        home = opened.home / FOLDER if opened.home is not None else None
    there = [*home.iterdir()] if home is not None and home.is_dir() else []
    files = {item.name.removesuffix(".safetensors"): item for item in there}
    if not files:
        what = f"holds no masks of tasks: expected {FOLDER}/*.safetensors."
        raise UsageError(Problem(str(merged), what, "Merge by emr or tall_masks, which keep them."))
    name = folder_name(task)
    if name not in files:
        raise UsageError(Problem(f"{merged}: {task}", "no such task.", nearest(name, files)))
    return str(files[name])


def base_of(masks: MaskFile, given: Checkpoint | None) -> str:
    """Where a task's base lies, after a look at everything that the task is rebuilt from.

    Args:
        masks: the task's.
        given: the base, where the merge's record shall not say where it lies.

    Raises:
        UsageError: the base is gone, or not the one of the merge.
        AlliageError: masks or merged weights are not those that the merge wrote.
    """
    record = provenance.read(masks.folder)
    if record is None or record.get("command") != "merge":
        what = f"has no {provenance.FILE} of the merge that wrote the masks."
        raise AlliageError(Problem(str(masks.folder), what, "Merge again."))
    with open_checkpoint(str(masks.folder)) as merged:
        files = {file.name: file for file in merged.weight_files}
    files[f"{FOLDER}/{masks.file.path.name}"] = masks.file.path
    wrote = _digests(record["outputs"])
    problems = [
        Problem(str(file), "is not what the merge wrote: masks hold for its own weights only.")
        for name, file in files.items()
        if wrote.get(name) != sha256(file)
    ]
    if problems:
        raise AlliageError(problems)
    recorded = next(source for source in record["inputs"] if source["role"] == "base")
    known = set(_digests(recorded["files"]).values())
    what = f"is not of the base that the merge counts from ({recorded['path']})."
    opened = nullcontext(given) if given is not None else _open_recorded(recorded["path"], masks)
    with opened as base:
        wrong = [Problem(str(f), what) for f in base.weight_files if sha256(f) not in known]
    if wrong:
        raise UsageError(wrong)
    return base.ref


def _digests(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["file"]: entry["sha256"] for entry in entries}


def _open_recorded(path: str, masks: MaskFile) -> Checkpoint:
    try:
        return open_checkpoint(path)
    except UsageError:
        what = f"counts from the base {path}, which is not there."
        fix = "Say where it is (--base)."
        raise UsageError(Problem(str(masks.folder), what, fix)) from None
