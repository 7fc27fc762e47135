"""What a recipe's training science asks of the Trainer, all in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from alliage.data import Task
from alliage.data.encoding import Encoder, Features
from alliage.data.task import GENERATIVE
from alliage.errors import Problem, UsageError
from alliage.tuning.science import (
    clipping,
    deficits,
    dropout,
    fisher_trace,
    hyperspherical,
    optimizers,
    schedules,
    stochastic_depth,
)

if TYPE_CHECKING:
    from alliage.tuning.recipe import TuneRecipe


@dataclass(frozen=True, slots=True)
class Options:
    """What the Trainer gets beside its usual arguments.

    Attributes:
        arguments: of `TrainingArguments`.
        optimizer: class and arguments; None for the Trainer's own AdamW.
        schedule: makes one of an optimiser and the number of steps; None for the Trainer's own.
        shown: the examples as training shows them; None for what they are.
        callbacks: of transformers.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    optimizer: tuple[Any, dict[str, Any]] | None = None
    schedule: Callable[[Any, int], Any] | None = None
    shown: Any = None
    callbacks: tuple[Any, ...] = ()


def prepare(
    recipe: TuneRecipe, model: Any, encoder: Encoder, task: Task, data: Sequence[Features]
) -> Options:
    """Turn a recipe's settings into what the Trainer takes.

    Args:
        recipe: with its settings.
        model: to be trained.
        encoder: of the examples.
        task: that is learned.
        data: the encoded examples to train on.

    Raises:
        UsageError: settings that the model or the task cannot have; every problem.
    """
    problems: list[Problem] = []
    callbacks: list[Any] = []

    def attempt(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except UsageError as error:
            problems.extend(error.problems)
            return None

    arguments: dict[str, Any] = {}
    if recipe.schedule is not None:
        chosen, width = recipe.schedule, getattr(model.config, "hidden_size", None)
        arguments |= attempt(lambda: schedules.trainer_arguments(chosen, width)) or {}
    if recipe.clipping is not None:
        arguments["max_grad_norm"] = recipe.clipping.norm or 0.0
        if recipe.clipping.value is not None:
            callbacks.append(clipping.by_value(recipe.clipping.value))
    for settings, technique in (
        (recipe.dropout, dropout),
        (recipe.stochastic_depth, stochastic_depth),
        (recipe.hyperspherical_energy, hyperspherical),
    ):
        if settings is not None:
            callbacks.append(attempt(partial(technique.callback, settings, model)))
    shown = None
    if recipe.deficit is not None:
        tokenizer = getattr(encoder, "tokenizer", None)
        shown = attempt(partial(deficits.build, recipe.deficit, data, task, tokenizer, recipe.seed))
        callbacks.append(deficits.callback(shown))
    if recipe.fisher_trace is not None:
        shift = task.kind in GENERATIVE and not model.config.is_encoder_decoder
        callbacks.append(
            fisher_trace.callback(
                recipe.fisher_trace, data if shown is None else shown, encoder.collate,
                shift=shift, seed=recipe.seed,
            )
        )  # fmt: skip
    if problems:
        raise UsageError(problems)
    rate = arguments.get("learning_rate", recipe.peak_learning_rate)
    schedule = None
    if recipe.schedule is not None and recipe.schedule.name == "triangular":
        schedule = partial(schedules.triangular, recipe.schedule)
    return Options(
        arguments=arguments,
        optimizer=optimizers.build(recipe.optimizer, rate) if recipe.optimizer else None,
        schedule=schedule,
        shown=shown,
        callbacks=tuple(callbacks),
    )
