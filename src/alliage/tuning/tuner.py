"""Running a recipe: transformers' Trainer and PEFT, and an output that is whole or not there."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.card import model_card
from alliage.checkpoints.digests import sha256
from alliage.checkpoints.labels import config_labels
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.reference import ADAPTER_CONFIG, read_json
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import OutputFolder, refuse_existing
from alliage.data import Task, load_task
from alliage.data.encoding import Encoder, encoder_for
from alliage.errors import AlliageError, Problem, UsageError
from alliage.evaluation.models import load_model
from alliage.evaluation.quiet import quiet_transformers
from alliage.tuning.adapters import add_lora
from alliage.tuning.recipe import TuneRecipe, load_recipe, parse_recipe

OnEvent = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TuneRecord:
    """What a run did.

    Attributes:
        out: the new model or adapter.
        task: its name.
        method: full or lora.
        seconds: of the training itself.
        steps: of the optimiser.
        trained: parameters that were free to move.
        loss: mean training loss over the run.
    """

    out: Path
    task: str
    method: str
    seconds: float
    steps: int
    trained: int
    loss: float


def tune(
    recipe: TuneRecipe | str | Path | None = None,
    out: str | Path | None = None,
    *,
    on_event: OnEvent | None = None,
    **settings: Any,
) -> TuneRecord:
    """Tune a model on a task.

    A body gets a head for the task's labels, started afresh from the seed; a model that decides
    between these very labels already keeps its head. Inputs, seed and thread count decide every
    byte of the output.

    Args:
        recipe: a recipe or the path of its YAML file; nothing where `settings` say it all.
        out: the new folder: a full model, or a PEFT adapter with its head.
        on_event: called with ("tuning", step, steps).
        settings: keys of `TuneRecipe`, in place of the recipe's.

    Raises:
        UsageError: a recipe that is wrong, LoRA targets that match no module, no `out`, or one
            that exists.
        AlliageError: a model or data set that cannot be read, or a loss that became NaN.
    """
    chosen = _settle(recipe, settings)
    if out is None:
        raise UsageError(Problem("out", "no output folder given."))
    out = local_destination(out)
    refuse_existing(out)
    task = load_task(chosen.task)
    examples = task.examples("train", limit=chosen.train_limit, seed=chosen.seed)
    with open_checkpoint(chosen.model) as base, quiet_transformers(), _deterministic():
        if base.adapter is not None:
            raise UsageError(
                Problem(chosen.model, "is an adapter.", "Tune its base, or merge it first.")
            )
        torch.manual_seed(chosen.seed)
        keeps_head = config_labels(base.config) == task.labels
        model, fresh = load_model(base, task.kind, task.labels, head=None if keeps_head else {})
        encoder = encoder_for(task.kind, base, model.config, max_length=chosen.max_length)
        if chosen.method == "lora":
            if not fresh:  # the head that the base brings moves too
                fresh = _head_parameters(model)
            model = add_lora(model, chosen.lora, task.kind, fresh)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            steps = 0
            if chosen.head_epochs:
                first = {"epochs": chosen.head_epochs, "patience": None}
                first["learning_rate"] = chosen.head_learning_rate
                probe = chosen.model_copy(update=first)
                with _head_alone(model):
                    steps = _train(
                        model, encoder, task, examples, probe, scratch, on_event
                    ).global_step
            result = _train(model, encoder, task, examples, chosen, scratch, on_event)
            seconds = time.perf_counter() - started
        with OutputFolder(out) as folder:
            _save(model, base, task, chosen, folder)
    return TuneRecord(
        out=out,
        task=task.name,
        method=chosen.method,
        seconds=seconds,
        steps=int(steps + result.global_step),
        trained=trained,
        loss=float(result.training_loss),
    )


def _settle(recipe: TuneRecipe | str | Path | None, settings: dict[str, Any]) -> TuneRecipe:
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    content = recipe.model_dump(exclude_unset=True) if recipe is not None else {}
    given = {
        key: str(value) if isinstance(value, Path) else value for key, value in settings.items()
    }
    return parse_recipe(content | given)


@contextmanager
def _head_alone(model: torch.nn.Module) -> Iterator[None]:
    """Hold every parameter but the head's."""
    held = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not is_task_head(name)
    ]
    for parameter in held:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad = True


def _head_parameters(model: torch.nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters() if is_task_head(name)}


def _train(
    model: Any,
    encoder: Encoder,
    task: Task,
    examples: Any,
    recipe: TuneRecipe,
    scratch: str,
    on_event: OnEvent | None,
) -> Any:
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

    stopping: dict[str, Any] = {}
    if recipe.patience is not None:
        stopping = {
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    arguments = TrainingArguments(
        output_dir=scratch,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.peak_learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,  # a share of all steps where below 1
        seed=recipe.seed,
        data_seed=recipe.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **({"save_strategy": "no"} | stopping),
    )
    callbacks: list[Any] = [_progress(on_event)]
    if recipe.patience is not None:
        callbacks.append(EarlyStoppingCallback(recipe.patience))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=encoder.encode(examples),
        eval_dataset=encoder.encode(task.examples("validation")) if stopping else None,
        data_collator=encoder.collate,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    result = trainer.train()
    broken = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    if broken:
        raise AlliageError(
            Problem(
                f"{recipe.task}: {broken[0]}",
                "became NaN or infinite in training.",
                "Lower the learning rate, or add warm-up.",
            )
        )
    return result


def _progress(on_event: OnEvent | None) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if on_event is not None:
                on_event("tuning", state.global_step, state.max_steps)

    return Progress()


@contextmanager
def _deterministic() -> Iterator[None]:
    """Only algorithms that repeat themselves, and the caller's random state back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  the Trainer seeds both
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _save(
    model: Any,
    base: Checkpoint,
    task: Task,
    recipe: TuneRecipe,
    folder: OutputFolder,
) -> None:
    if recipe.method == "lora":
        model.peft_config["default"].base_model_name_or_path = base.location
    model.save_pretrained(folder.staging)
    if recipe.method == "lora":
        _order_lists(folder)
    folder.add_companions(base)
    settings = recipe.model_dump(mode="json", exclude_none=True)
    settings |= {"learning_rate": recipe.peak_learning_rate}
    if recipe.method != "lora":
        del settings["lora"]
    inputs = [provenance.describe_input("base", base)]
    if task.files:
        inputs.append(_describe_data(recipe.task, task.files))
    parent = (provenance.read(base.folder) if base.folder else None) or {}
    pruned = {"layers_kept": parent["layers_kept"]} if "layers_kept" in parent else {}
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
    how = "in full" if recipe.method == "full" else f"with LoRA of rank {recipe.lora.rank}"
    summary = f"`{base.name}` tuned {how} on `{task.name}` ({task.kind})."
    folder.add_text("README.md", model_card(folder.out.name, summary, record))


def _order_lists(folder: OutputFolder) -> None:
    """PEFT keeps module names in sets, whose order in adapter_config.json changes by the run."""
    content = read_json(folder.staging / ADAPTER_CONFIG)
    folder.add_json(
        ADAPTER_CONFIG,
        {
            key: sorted(value) if key in ("target_modules", "modules_to_save") and value else value
            for key, value in content.items()
        },
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
