"""Running transformers' Trainer on a model and encoded examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alliage.data.encoding import Features, lengths
from alliage.errors import AlliageError, Problem
from alliage.tuning.batches import GroupedSampler, long_first
from alliage.tuning.figures import Evaluation
from alliage.tuning.recipe import TuneRecipe
from alliage.tuning.science import fisher_trace
from alliage.tuning.science.options import Options
from alliage.tuning.states import States, load_moving, save_moving
from alliage.tuning.trackers import keep_logs

OnEvent = Callable[[str, int, int], None]

_LOG_STEPS = 10  # between two lines for a tracker
_NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did.

    Attributes:
        steps: of the optimiser.
        epochs: passes over the examples.
        loss: mean training loss over the steps.
        evaluations: in their order.
        fisher_trace: rows of what was measured on the way.
    """

    steps: int
    epochs: float
    loss: float
    evaluations: tuple[Evaluation, ...]
    fisher_trace: tuple[fisher_trace.Row, ...]


def train(
    model: Any,
    data: Sequence[Features],
    validation: Sequence[Features] | None,
    collate: Callable[[Any], Mapping[str, torch.Tensor]],
    recipe: TuneRecipe,
    states: States,
    options: Options = _NO_OPTIONS,
    *,
    on_event: OnEvent | None = None,
) -> Trained:
    """Train a model's free parameters, from the last state where there is one.

    Args:
        model: transformers' model, or PEFT's around it.
        data: encoded examples to train on.
        validation: encoded examples to look at, where the recipe asks for it.
        collate: makes a batch of encoded examples.
        recipe: the settings.
        states: where training states go and come from.
        options: of the recipe's training science.
        on_event: called with ("tuning", step, steps).

    Raises:
        AlliageError: a parameter became NaN or infinite.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback

    chosen = [_flow(states, on_event), *options.callbacks]
    if recipe.patience is not None:
        chosen.append(EarlyStoppingCallback(recipe.patience))
    trainer = _trainer_class()(
        states,
        recipe,
        data,
        options,
        model=model,
        args=_arguments(recipe, states, options.arguments),
        train_dataset=data if options.shown is None else options.shown,
        optimizer_cls_and_kwargs=options.optimizer,
        eval_dataset=None if validation is None else long_first(validation),
        data_collator=collate,
        callbacks=chosen,
    )
    trainer.remove_callback(PrinterCallback)
    keep_logs(trainer.callback_handler.callbacks, states.out)
    trainer.train(resume_from_checkpoint=str(states.last) if states.last else None)
    state = trainer.state
    if recipe.patience is not None and state.best_global_step:
        load_moving(model, states.at(state.best_global_step))
    broken = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    if broken:
        raise AlliageError(
            Problem(
                f"{recipe.task}: {broken[0]}",
                "became NaN or infinite in training.",
                "Lower the learning rate, or add warm-up.",
            )
        )
    history = state.log_history
    return Trained(
        steps=state.global_step,
        epochs=state.epoch,
        loss=_mean_loss(history),
        evaluations=_seen(history),
        fisher_trace=tuple(fisher_trace.rows(history)),
    )


def _arguments(recipe: TuneRecipe, states: States, more: Mapping[str, Any]) -> Any:
    from transformers import TrainingArguments

    part = recipe.batch_size // recipe.gradient_accumulation
    settings: dict[str, Any] = {
        "output_dir": str(states.home.absolute()),
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "per_device_train_batch_size": part,
        "per_device_eval_batch_size": recipe.eval_batch_size or part,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "learning_rate": recipe.peak_learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_steps": recipe.warmup,  # a share of all steps where below 1
        "bf16": recipe.precision == "bfloat16",
        # Asked for bfloat16, the Trainer wants to hear that there is no GPU.
        "use_cpu": recipe.precision == "bfloat16" and not torch.cuda.is_available(),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "prediction_loss_only": True,
        "save_strategy": "no",
        "restore_callback_states_from_checkpoint": True,  # how long patience has lasted
        "logging_strategy": "steps" if recipe.report_to else "no",
        "logging_steps": _LOG_STEPS,
        "report_to": list(recipe.report_to) or "none",
        "project": "alliage",
        "run_name": states.out.name,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    if recipe.eval_rhythm == "epoch":
        settings["eval_strategy"] = "epoch"
    elif recipe.eval_rhythm is not None:
        settings |= {"eval_strategy": "steps", "eval_steps": recipe.eval_rhythm}
    if recipe.patience is not None:
        settings |= {"save_strategy": "best", "metric_for_best_model": "eval_loss"}
        settings["greater_is_better"] = False
    return TrainingArguments(**{**settings, **more})


def _trainer_class() -> Any:
    """The Trainer, with batches of like length, and states by names in memory.

    The loss of a step is the mean over all its examples or tokens, in however many parts they go
    through the model. The Trainer leaves that to the architecture, of which most ignore it: their
    loss and gradients would be as many times too large as there are parts.
    """
    from transformers import Trainer

    class StatefulTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
        def __init__(
            self,
            states: States,
            recipe: TuneRecipe,
            data: Sequence[Features],
            options: Options,
            **settings: Any,
        ) -> None:
            self._states = states
            self._recipe = recipe
            self._data = data
            self._schedule = options.schedule
            super().__init__(**settings)
            self.model_accepts_loss_kwargs = True  # so that the labels of a step are counted
            self.loss_is_scaled_for_ga = True  # here

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **settings: Any
        ) -> Any:
            of_step = settings.pop("num_items_in_batch", None)
            found = super().compute_loss(model, inputs, return_outputs, **settings)
            if of_step is None or self.current_gradient_accumulation_steps == 1:
                return found
            share = self._get_num_items_in_batch([inputs], inputs["labels"].device) / of_step
            loss = found[0] if return_outputs else found
            # Of a part without a label, the mean is NaN.
            loss = share * loss if share else 0 * loss.nan_to_num()
            return (loss, found[1]) if return_outputs else loss

        def _get_num_items_in_batch(self, parts: Any, device: Any) -> Any:
            if parts and parts[0]["labels"].is_floating_point():  # -100 is a number among others
                return torch.tensor(sum(part["labels"].numel() for part in parts))
            return super()._get_num_items_in_batch(parts, device)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if not self._recipe.group_by_length:
                return super()._get_train_sampler(train_dataset)
            sizes, batch_size = lengths(self._data), self.args.train_batch_size
            return GroupedSampler(sizes, batch_size, self._recipe.seed, self._epoch)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if self._schedule is None:
                return super().create_scheduler(num_training_steps, optimizer)
            self.lr_scheduler = self._schedule(optimizer or self.optimizer, num_training_steps)
            self._created_lr_scheduler = True
            return self.lr_scheduler

        def _epoch(self) -> int:
            return int(self.state.epoch or 0)

        def save_model(self, *_: Any, **__: Any) -> None:
            save_moving(self.model, self._states.at(self.state.global_step))

        def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
            assert self._states.last is not None
            load_moving(self.model, self._states.last)

        def _run_epoch(self, *args: Any, **settings: Any) -> None:
            if self.state.global_step >= self.state.max_steps:  # the state of a run that had ended
                self.control.should_training_stop = True
                return
            super()._run_epoch(*args, **settings)

    return StatefulTrainer


def _flow(states: States, on_event: OnEvent | None) -> Any:
    """The callback that says how far training is, and when its state is saved."""
    from transformers import TrainerCallback

    class Flow(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if on_event is not None:
                on_event("tuning", state.global_step, state.max_steps)
            ended = state.global_step >= state.max_steps
            # At an epoch's end its look at the validation split comes before the state.
            if not ended and state.epoch % 1 and states.due(state.global_step):
                control.should_save = True
            # The mean loss since the last log is not in the state.
            control.should_log |= ended or control.should_save or control.should_evaluate

        def on_epoch_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if state.global_step < state.max_steps and states.due(state.global_step):
                control.should_save = True
            control.should_log |= control.should_save or control.should_evaluate

        def on_save(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            states.keep(state.global_step, state.best_global_step)

    return Flow()


def _mean_loss(history: Sequence[Mapping[str, Any]]) -> float:
    """The mean over all steps of the mean losses since the last log each."""
    total, last = 0.0, 0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = entry["step"]
    return total / max(last, 1)


def _seen(history: Sequence[Mapping[str, Any]]) -> tuple[Evaluation, ...]:
    return tuple(
        Evaluation(entry["step"], entry["epoch"], entry["eval_loss"])
        for entry in history
        if "eval_loss" in entry
    )
