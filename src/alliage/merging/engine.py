"""Running a plan: the merged checkpoint with everything that belongs to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alliage.checkpoints import provenance
from alliage.checkpoints.card import model_card
from alliage.checkpoints.reference import ADAPTER_CONFIG, CONFIG
from alliage.checkpoints.writer import OutputFolder, TensorWriter, refuse_existing
from alliage.merging.blocks import merge_blocks
from alliage.merging.factors import merge_factors
from alliage.merging.heads import write_heads
from alliage.merging.planning import Plan
from alliage.vectors import LowRankVector, TaskVector

OnEvent = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run did.

    Attributes:
        out: the new checkpoint.
        seconds: of the whole run.
        bytes_written: of weights.
        passes: over all blocks: first passes and the merge.
        blocks_redone: blocks merged again because a guess did not hold.
    """

    out: Path
    seconds: float
    bytes_written: int
    passes: int
    blocks_redone: int


def run(
    plan: Plan, out: str | Path, *, device: str = "cpu", on_event: OnEvent | None = None
) -> RunRecord:
    """Write the merged checkpoint; it appears under `out` when complete and not before.

    The same plan on the same inputs writes the same bytes, whatever the threads and the memory.

    Args:
        plan: without problems.
        out: a path that does not exist.
        device: where blocks are computed: "cpu" or "cuda".
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: `out` exists.
        AlliageError: the plan has problems, or the inputs hold NaN or infinity: all of them.
    """
    plan.raise_problems()
    refuse_existing(Path(out))
    started = time.perf_counter()
    assert plan.base is not None
    assert plan.layout is not None
    notify = on_event or (lambda *_: None)
    with OutputFolder(out) as folder:
        with TensorWriter(folder.staging, plan.layout) as writer:
            if plan.method.unit == "factors":
                passes, redone = merge_factors(plan, writer, notify)
            else:
                passes, redone = merge_blocks(plan, writer, device, notify)
        write_heads(plan, folder)
        _write_settings(plan, folder)
        folder.add_companions(plan.base)
        _write_provenance(plan, folder, notify)
    return RunRecord(Path(out), time.perf_counter() - started, plan.bytes_to_write, passes, redone)


def _write_settings(plan: Plan, folder: OutputFolder) -> None:
    """config.json of the base with the output's type; an adapter's own settings for factors."""
    assert plan.base is not None
    if plan.method.unit == "factors":
        first = plan.vectors[0]
        assert isinstance(first, LowRankVector)
        assert first.adapter.adapter is not None
        settings = dict(first.adapter.adapter.raw)
        # The heads stay apart; PEFT expects one in an adapter that names its type of task.
        apart = {"modules_to_save": None, "task_type": None}
        settings |= {"base_model_name_or_path": plan.base.location, **apart}
        folder.add_json(ADAPTER_CONFIG, settings)
        return
    if plan.base.config is None:
        return
    config = dict(plan.base.config)
    if plan.recipe.dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = plan.recipe.dtype
    folder.add_json(CONFIG, config)


def _write_provenance(plan: Plan, folder: OutputFolder, notify: OnEvent) -> None:
    assert plan.base is not None
    recipe = plan.recipe.model_dump(mode="json", exclude_none=True)
    recipe["parameters"] = {
        key: value
        for key, value in plan.arguments.items()
        if not plan.method.parameters[key].per_model
    }
    for position, entry in enumerate(recipe["models"]):
        entry["name"] = plan.vectors[position].name
        entry["parameters"] = {
            key: plan.arguments[key][position]
            for key, declared in plan.method.parameters.items()
            if declared.per_model
        }
    sources = [("base", plan.base)] if plan.recipe.base is not None or _has_adapters(plan) else []
    sources += [
        (vector.name, vector.tuned if isinstance(vector, TaskVector) else vector.adapter)
        for vector in plan.vectors
    ]
    described = []
    for done, (role, checkpoint) in enumerate(sources, start=1):
        described.append(provenance.describe_input(role, checkpoint))
        notify("hashing inputs", done, len(sources))
    record: dict[str, Any] = provenance.describe(
        "merge", recipe, described, folder.staging, method=plan.method.name
    )
    folder.add_json(provenance.FILE, record)
    names = ", ".join(f"`{vector.name}`" for vector in plan.vectors)
    summary = f"A merge of {names} by `{plan.method.name}` ({plan.method.paper})." + (
        f" {plan.method.departures}" if plan.method.departures else ""
    )
    folder.add_text("README.md", model_card(folder.out.name, summary, record))


def _has_adapters(plan: Plan) -> bool:
    return any(not isinstance(vector, TaskVector) for vector in plan.vectors)
