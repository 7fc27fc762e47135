"""Removing layers from a model on disk: bytes are copied, no model is built."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import alliage.checkpoints
from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints.card import model_card
from alliage.checkpoints.reference import CONFIG, HEADS
from alliage.checkpoints.writer import OutputFolder, TensorWriter
from alliage.pruning.planning import PruningPlan, plan

OnEvent = Callable[[str, int, int], None]

_CARRIED = ("task", "kind", "labels")  # facts of the model that pruning leaves true


@dataclass(frozen=True, slots=True)
class PruningRecord:
    """What a pruning did.

    Attributes:
        out: the new checkpoint.
        kept: the layers of the model that it holds.
        seconds: of the whole run.
        bytes_written: of weights.
    """

    out: Path
    kept: tuple[int, ...]
    seconds: float
    bytes_written: int


def remove_layers(
    source: str | Path | Checkpoint, keep: Sequence[int], out: str | Path
) -> PruningRecord:
    """Write a model that keeps only some layers of another.

    The output loads with `from_pretrained` and computes what the whole model computes when the
    other layers are skipped. It appears under `out` when complete and not before.

    Args:
        source: a full model: a folder or hub id with its config.json.
        keep: the layers that stay, ascending, from 0.
        out: a path that does not exist.

    Raises:
        UsageError: layers that are not there or repeated, or `out` exists.
        AlliageError: an architecture whose layers cannot be removed, or a damaged checkpoint.
    """
    with opened(source) as checkpoint:
        return run(plan(checkpoint, keep_layers=keep, out=out), out)


def opened(source: str | Path | Checkpoint) -> nullcontext[Checkpoint] | Checkpoint:
    """For a `with` block that closes what it opened itself."""
    if isinstance(source, Checkpoint):
        return nullcontext(source)
    return alliage.checkpoints.open(source)


def run(pruning: PruningPlan, out: str | Path, *, on_event: OnEvent | None = None) -> PruningRecord:
    """Carry out a plan.

    Args:
        pruning: the plan; its checkpoint is open.
        out: a path that does not exist.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: `out` exists.
        AlliageError: the model changed while it was read, or the disk is full.
    """
    started = time.perf_counter()
    notify = on_event or (lambda *_: None)
    checkpoint = pruning.checkpoint
    with OutputFolder(out) as folder, ThreadPoolExecutor(1) as beside:
        described = beside.submit(provenance.describe_input, "base", checkpoint)
        with TensorWriter(folder.staging, pruning.layout) as writer:
            for done, (name, old) in enumerate(pruning.origins.items(), start=1):
                writer.copy(name, checkpoint, old)
                notify("copying tensors", done, len(pruning.origins))
        folder.add_json(CONFIG, pruning.config)
        folder.add_companions(checkpoint)
        _copy_heads(checkpoint, folder)
        _write_provenance(pruning, folder, described.result())
    return PruningRecord(Path(out), pruning.keep, time.perf_counter() - started, pruning.bytes_kept)


def _copy_heads(checkpoint: Checkpoint, folder: OutputFolder) -> None:
    if checkpoint.folder is not None and (checkpoint.folder / HEADS).is_dir():
        shutil.copytree(checkpoint.folder / HEADS, folder.staging / HEADS)


def _write_provenance(
    pruning: PruningPlan, folder: OutputFolder, described: dict[str, object]
) -> None:
    checkpoint = pruning.checkpoint
    parent = (provenance.read(checkpoint.folder) if checkpoint.folder else None) or {}
    record = provenance.describe(
        "prune",
        pruning.recipe,
        [described],
        folder.staging,
        method=pruning.recipe.get("strategy", "keep-layers"),
        layers_kept=list(pruning.keep),
        **{key: parent[key] for key in _CARRIED if key in parent},
    )
    folder.add_json(provenance.FILE, record)
    kept = ", ".join(map(str, pruning.keep))
    summary = (
        f"`{checkpoint.name}` with {len(pruning.keep)} of its {pruning.stack.n_layers} layers: "
        f"{kept} (counted from 0), numbered anew from 0. All other weights are unchanged."
    )
    folder.add_text("README.md", model_card(folder.out.name, summary, record))
