"""Running a recipe: transformers' Trainer and PEFT, and an output that is whole or not there."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.labels import config_labels
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import OutputFolder, refuse_existing
from alliage.data import load_task
from alliage.data.encoding import encoder_for
from alliage.errors import Problem, UsageError
from alliage.evaluation.models import load_model
from alliage.evaluation.quiet import quiet_transformers
from alliage.tuning.adapters import add_lora
from alliage.tuning.recipe import TuneRecipe, load_recipe, parse_recipe
from alliage.tuning.saving import save
from alliage.tuning.training import OnEvent, train


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
                    steps = train(
                        model, encoder, task, examples, probe, scratch, on_event
                    ).global_step
            result = train(model, encoder, task, examples, chosen, scratch, on_event)
            seconds = time.perf_counter() - started
        with OutputFolder(out) as folder:
            save(model, base, task, chosen, folder)
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
