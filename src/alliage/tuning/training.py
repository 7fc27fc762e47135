"""Running transformers' Trainer on a model and encoded examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from alliage.data import Example, Task
from alliage.data.encoding import Encoder
from alliage.errors import AlliageError, Problem
from alliage.tuning.recipe import TuneRecipe

OnEvent = Callable[[str, int, int], None]


def train(
    model: Any,
    encoder: Encoder,
    task: Task,
    examples: Sequence[Example],
    recipe: TuneRecipe,
    scratch: str,
    on_event: OnEvent | None,
    *,
    callbacks: Sequence[Any] = (),
) -> Any:
    """Train a model's free parameters.

    Args:
        model: transformers' model, or PEFT's around it.
        encoder: prepares examples for it.
        task: for its validation split.
        examples: to train on.
        recipe: the settings.
        scratch: an empty folder.
        on_event: called with ("tuning", step, steps).
        callbacks: of transformers, beside those of the recipe.

    Returns:
        the Trainer's `TrainOutput`.

    Raises:
        AlliageError: a parameter became NaN or infinite.
    """
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
    chosen = [_progress(on_event), *callbacks]
    if recipe.patience is not None:
        chosen.append(EarlyStoppingCallback(recipe.patience))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=encoder.encode(examples),
        eval_dataset=encoder.encode(task.examples("validation")) if stopping else None,
        data_collator=encoder.collate,
        callbacks=chosen,
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
