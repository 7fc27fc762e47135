"""Writing what was tuned: weights, tokenizer, card and provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints.card import model_card
from alliage.checkpoints.digests import sha256
from alliage.checkpoints.reference import ADAPTER_CONFIG, read_json
from alliage.checkpoints.writer import OutputFolder
from alliage.data import Task
from alliage.tuning.figures import FILE, TuneRecord
from alliage.tuning.recipe import TuneRecipe
from alliage.tuning.science.reference import architecture_of

SCIENCE = "science.json"  # what was measured in training
_SETS = ("target_modules", "modules_to_save", "feedforward_modules")


def save(
    model: Any,
    base: Checkpoint,
    task: Task,
    recipe: TuneRecipe,
    cost: TuneRecord,
    folder: OutputFolder,
) -> None:
    """Fill an output's folder: a full model, or an adapter with its head.

    alliage.json vouches for everything but the card and training.json, which differs from run to
    run.
    """
    if recipe.method != "full":
        model.peft_config["default"].base_model_name_or_path = base.location
    model.save_pretrained(folder.staging)
    if recipe.method != "full":
        _order_lists(folder)
    folder.add_companions(base)
    settings = recipe.model_dump(mode="json", exclude_none=True)
    if recipe.schedule is None or recipe.schedule.name != "noam":
        settings |= {"learning_rate": recipe.peak_learning_rate}
    if recipe.max_steps is not None:
        del settings["epochs"]
    for name in {"lora", "ia3"} - {recipe.method}:
        del settings[name]
    started = architecture_of(recipe.model)
    if started is None:
        del settings["reference"]
    inputs = [] if started else [provenance.describe_input("base", base)]
    if cost.fisher_trace:
        folder.add_json(SCIENCE, {"fisher_trace": list(cost.fisher_trace)})
    if task.files:
        inputs.append(_describe_data(recipe.task, task.files))
    parent = (provenance.read(base.folder) if base.folder else None) or {}
    pruned = {"layers_kept": parent["layers_kept"]} if "layers_kept" in parent else {}
    (folder.staging / FILE).unlink(missing_ok=True)  # of a run killed after this
    record = provenance.describe(
        "tune",
        settings,
        inputs,
        folder.staging,
        task=task.name,
        kind=task.kind,
        labels=list(task.labels),
        method=recipe.method,
        **pruned,
    )
    folder.add_json(provenance.FILE, record)
    folder.add_json(FILE, cost.to_dict())
    how = {"full": "in full", "lora": f"with LoRA of rank {recipe.lora.rank}", "ia3": "with (IA)3"}
    summary = f"`{started or base.name}` tuned {how[recipe.method]} on `{task.name}` ({task.kind})."
    folder.add_text("README.md", model_card(folder.out.name, summary, record))


def _order_lists(folder: OutputFolder) -> None:
    """PEFT keeps module names in sets, whose order in adapter_config.json changes by the run."""
    content = read_json(folder.staging / ADAPTER_CONFIG)
    folder.add_json(
        ADAPTER_CONFIG,
        {key: sorted(value) if key in _SETS and value else value for key, value in content.items()},
    )


def _describe_data(ref: str, files: Sequence[Path]) -> dict[str, Any]:
    """A task's files, as `provenance.describe_input` describes a checkpoint's."""
    home = Path(os.path.commonpath([file.resolve().parent for file in files]))
    return {
        "role": "task",
        "ref": ref,
        "path": str(home),
        "files": [
            {
                "file": str(file.resolve().relative_to(home)),
                "bytes": file.stat().st_size,
                "sha256": sha256(file),
            }
            for file in files
        ],
    }
