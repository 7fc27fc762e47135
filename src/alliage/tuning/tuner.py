"""Running a recipe: what goes in is read and checked, trained, and written whole or not at all."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import alliage
from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.journal import JournaledFolder, discard_finished
from alliage.checkpoints.labels import config_labels
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import refuse_existing
from alliage.data import Example, Task, load_task
from alliage.data.encoding import encoded, encoder_for
from alliage.data.task import GENERATIVE
from alliage.errors import Problem, UsageError
from alliage.evaluation.models import load_model
from alliage.evaluation.quiet import quiet_transformers
from alliage.tuning import figures
from alliage.tuning.adapters import add_adapter
from alliage.tuning.figures import TuneRecord
from alliage.tuning.recipe import TuneRecipe, load_recipe, parse_recipe
from alliage.tuning.saving import save
from alliage.tuning.science.initialisation import initialise
from alliage.tuning.science.options import prepare
from alliage.tuning.science.reference import architecture_of
from alliage.tuning.science.reference import write as write_reference
from alliage.tuning.states import States, clear
from alliage.tuning.trackers import refuse_missing
from alliage.tuning.training import OnEvent, train

_ONE_OF_LABELS = ("sequence-classification", "image-classification")


def tune(
    recipe: TuneRecipe | str | Path | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    on_event: OnEvent | None = None,
    **settings: Any,
) -> TuneRecord:
    """Tune a model on a task.

    A body gets a head for the task's labels, started afresh from the seed; a model that decides
    between these very labels already keeps its head. Inputs, seed and thread count decide every
    byte of the output but for its training.json, which says what the run cost. A run that was
    interrupted goes on from its last saved state and ends with the same bytes.

    Args:
        recipe: a recipe or the path of its YAML file; nothing where `settings` say it all.
        out: the new folder: a full model, or a PEFT adapter with its head.
        resume: whether to go on where an interrupted run to `out` ended, if there was one.
        on_event: called with ("tuning", step, steps).
        settings: keys of `TuneRecipe`, in place of the recipe's.

    Raises:
        UsageError: a recipe that is wrong, targets that match no module, no `out`, one that
            exists or to which another run was interrupted, or a tracker that is not installed.
        AlliageError: a model or data set that cannot be read, or a loss that became NaN.
    """
    chosen = _settle(recipe, settings)
    if out is None:
        raise UsageError(Problem("out", "no output folder given."))
    out = local_destination(out)
    if resume and out.exists():  # killed after the end
        discard_finished(out)
    refuse_existing(out)
    refuse_missing(chosen.report_to)
    task = load_task(chosen.task)
    examples = task.examples("train", limit=chosen.train_limit, seed=chosen.seed)
    with quiet_transformers(), _open_base(chosen, task) as base, _deterministic():
        if base.adapter is not None:
            raise UsageError(
                Problem(chosen.model, "is an adapter.", "Tune its base, or merge it first.")
            )
        how = {"threads": torch.get_num_threads()}
        with (
            JournaledFolder(out, _subject(chosen, base, task), how, resume=resume) as folder,
            _threads(folder.choices["threads"]),
        ):
            return _run(chosen, base, task, examples, folder, on_event)


def _settle(recipe: TuneRecipe | str | Path | None, settings: dict[str, Any]) -> TuneRecipe:
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    content = recipe.model_dump(exclude_unset=True) if recipe is not None else {}
    given = {
        key: str(value) if isinstance(value, Path) else value for key, value in settings.items()
    }
    return parse_recipe(content | given).settled()


@contextmanager
def _open_base(recipe: TuneRecipe, task: Task) -> Iterator[Checkpoint]:
    """The recipe's model; a reference model is written for the run alone."""
    name = architecture_of(recipe.model)
    if name is None:
        with open_checkpoint(recipe.model) as base:
            yield base
        return
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / name
        folder.mkdir()
        write_reference(recipe.model, recipe.reference, task, folder, recipe.seed)
        with open_checkpoint(folder) as base:
            yield base


def _subject(recipe: TuneRecipe, base: Checkpoint, task: Task) -> dict[str, Any]:
    """What makes two runs the same: the recipe, the inputs as they are now, what decides bits."""
    packages = ("accelerate", "numpy", "peft", "torch", "transformers")
    data = {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in task.files}
    files = {} if architecture_of(recipe.model) else base.versions  # of one written for this run
    return {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "inputs": {**files, **data},
        "made by": {
            "alliage": alliage.__version__,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            **{name: version(name) for name in packages},
        },
    }


def _run(
    recipe: TuneRecipe,
    base: Checkpoint,
    task: Task,
    examples: Sequence[Example],
    folder: JournaledFolder,
    on_event: OnEvent | None,
) -> TuneRecord:
    if task.kind == "image-classification":  # which have no length
        recipe = recipe.model_copy(update={"group_by_length": False})
    torch.manual_seed(recipe.seed)
    head: dict[str, torch.Tensor] | None = None if _keeps_head(base, task) else {}
    model, fresh = load_model(base, task.kind, task.labels, head=head)
    if task.kind in _ONE_OF_LABELS:  # as transformers writes at the first loss, if there is one
        model.config.problem_type = "single_label_classification"
    if recipe.initialisation is not None:
        generator = torch.Generator().manual_seed(recipe.seed)
        initialise(model, recipe.initialisation, generator)
    encoder = encoder_for(task.kind, base, model.config, max_length=recipe.max_length)
    if recipe.method != "full":
        model = add_adapter(model, recipe, task.kind, fresh)
    data = encoded(encoder, _labelled(task, "train", examples))
    validation = None
    if recipe.eval_rhythm is not None:
        looked_at = task.examples("validation")
        validation = encoded(encoder, _labelled(task, "validation", looked_at))
    options = prepare(recipe, model, encoder, task, data)
    figures.watch_gpu()
    clear(folder)
    states = States(folder, "tuning", recipe.save_every, steps=0, epochs=0.0, seconds=0.0)
    if recipe.head_epochs and states.last is None:
        first = States(folder, "head", recipe.save_every)
        with _head_alone(model):
            probe = train(
                model, data, None, encoder.collate, _of_head(recipe), first, on_event=on_event
            )
        states.carried = {
            "steps": probe.steps, "epochs": probe.epochs, "seconds": first.elapsed()
        }  # fmt: skip
        states.restart()
    done = train(
        model, data, validation, encoder.collate, recipe, states, options, on_event=on_event
    )
    before = states.carried
    seconds = before["seconds"] + states.elapsed()
    record = TuneRecord(
        out=folder.out,
        task=task.name,
        method=recipe.method,
        seconds=seconds,
        steps=int(before["steps"] + done.steps),
        examples_per_second=(before["epochs"] + done.epochs) * len(data) / seconds,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        parameters=sum(  # PEFT keeps the head as it was beside the one that moves
            p.numel() for name, p in model.named_parameters() if ".original_module." not in name
        ),
        loss=done.loss,
        evaluations=done.evaluations,
        fisher_trace=done.fisher_trace,
        truncated=encoder.truncated,
        notes=tuple(map(str, task.notes)),
        peak_memory=figures.peak_memory(),
        peak_gpu_memory=figures.peak_gpu_memory(),
    )
    save(model, base, task, recipe, record, folder)
    return record


def _labelled(task: Task, split: str, examples: Sequence[Example]) -> Sequence[Example]:
    """The examples, which must say what is right.

    Raises:
        UsageError: the split is empty, or hides its labels.
    """
    if not examples:
        raise UsageError(
            Problem(f"{task.name}: {split}", "holds no example.", "Choose other files.")
        )
    if examples[0].label is None:
        raise UsageError(
            Problem(
                f"{task.name}: {split}", "has no labels: tuning needs them.", "Choose other files."
            )
        )
    return examples


def _keeps_head(base: Checkpoint, task: Task) -> bool:
    """Whether the base answers the task's question already, if it has a head at all."""
    if task.kind in GENERATIVE:
        return True
    if task.kind == "regression":
        return (base.config or {}).get("problem_type") == "regression"
    return config_labels(base.config) == task.labels


def _of_head(recipe: TuneRecipe) -> TuneRecipe:
    """The recipe of the epochs in which only the head moves."""
    return recipe.model_copy(
        update={
            "epochs": recipe.head_epochs,
            "max_steps": None,
            "learning_rate": recipe.head_learning_rate,
            "patience": None,
            "eval_every": None,
        }
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many threads as the interrupted run had: they decide the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


@contextmanager
def _deterministic() -> Iterator[None]:
    """Only algorithms that repeat themselves, and the caller's random state back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    fills = settings.fill_uninitialized_memory
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  the Trainer seeds both
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False  # nobody reads it; it takes time
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = fills
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
