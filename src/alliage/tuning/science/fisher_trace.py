"""The trace of the Fisher information by layer, as a model learns (arXiv:1711.08856)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from alliage.checkpoints.names import is_head
from alliage.statistics.gradients import squared_terms
from alliage.tuning.science._settings import Settings

_KEY = "fisher_trace"
_IN_STACK = re.compile(r"^(?:.*\.)?(?:layers?|h|blocks?|transformer_blocks)\.\d+(?=\.)")

_COLUMNS = ("layer", "parameters", "trace", "standard_error")

Row = dict[str, Any]


class FisherTraceSettings(Settings):
    """How often, and on how many examples."""

    every: int = Field(default=50, ge=1, description="Steps from one measurement to the next.")
    examples: int = Field(
        default=64, ge=2, description="Of the train split, as training shows them."
    )
    labels: Literal["sampled", "exact"] = Field(
        default="sampled",
        description="One label for each prediction drawn from the model, or all of them weighted "
        "by their probabilities: exact, and slower by their number.",
    )


def fisher_trace(
    model: Any,
    batches: Sequence[Mapping[str, torch.Tensor]],
    generator: torch.Generator,
    *,
    labels: Literal["sampled", "exact"] = "sampled",
    shift: bool = False,
) -> dict[str, np.ndarray]:
    """E ‖∇ log p(y | x)‖² by layer, with y from the model itself, for one x at a time.

    Args:
        model: of transformers; its mode and gradients stay as they are. Dropout is off.
        batches: of one example each, with "labels". Where those are -100, nothing is predicted;
            else they only count.
        generator: draws the labels.
        labels: drawn, or all of them.
        shift: a position predicts the token after it, as in causal language models.

    Returns:
        layer -> ‖∇ log p‖² of every example [n]. The labels of several tokens are independent
        given x, so exact sums over tokens. Regression predicts a normal with variance 1.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = [layer_name(name) for name in named]
    found = {group: np.zeros(len(batches)) for group in dict.fromkeys(groups)}
    was_training = model.training
    model.eval()
    try:
        for index, batch in enumerate(batches):
            for weight, gradients in squared_terms(
                model, list(named.values()), batch, generator,
                expected=labels == "exact", shift=shift,
            ):  # fmt: skip
                for group, gradient in zip(groups, gradients, strict=True):
                    if gradient is not None:
                        found[group][index] += weight * gradient.square().sum().item()
    finally:
        model.train(was_training)
    return found


def layer_name(parameter: str) -> str:
    """The layer that a parameter belongs to: up to its index in a stack, else its module, or head.

    >>> layer_name("vit.layers.3.mlp.fc1.weight"), layer_name("classifier.bias")
    ('vit.layers.3', 'head')
    """
    match = _IN_STACK.match(parameter)
    if match:
        return match.group(0)
    if is_head(parameter):
        return "head"
    return "embeddings" if "embed" in parameter else parameter.rpartition(".")[0]


def callback(
    settings: FisherTraceSettings,
    examples: Any,
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    *,
    shift: bool,
    seed: int,
) -> Any:
    """A callback that measures before the first step, then every so many, and after the last.

    What it finds goes into the Trainer's history, and so into the states from which an interrupted
    run goes on; `rows` takes it out again.

    Args:
        settings: how often, on how many.
        examples: encoded ones to train on; drawn from anew at each measurement.
        collate: makes a batch of a list of them.
        shift: for causal language models.
        seed: of the examples and labels; training itself sees nothing of it.
    """
    from transformers import TrainerCallback

    class FisherTrace(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_train_begin(self, _: Any, state: Any, *__: Any, model: Any, **___: Any) -> None:
            if state.global_step == 0:  # else the run goes on, and has measured there if it should
                self._measure(model, state)

        def on_step_end(self, _: Any, state: Any, *__: Any, model: Any, **___: Any) -> None:
            if state.global_step % settings.every == 0 or state.global_step == state.max_steps:
                self._measure(model, state)

        def _measure(self, model: Any, state: Any) -> None:
            drawn = np.random.default_rng((seed, state.global_step)).permutation(len(examples))
            batches = [collate([examples[int(i)]]) for i in drawn[: settings.examples]]
            generator = torch.Generator().manual_seed(seed + state.global_step)
            found = fisher_trace(model, batches, generator, labels=settings.labels, shift=shift)
            sizes = dict.fromkeys(found, 0)
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    sizes[layer_name(name)] += parameter.numel()
            state.log_history.append(
                {
                    "step": int(state.global_step),
                    "epoch": float(state.epoch or 0.0),
                    _KEY: [
                        {
                            "layer": layer,
                            "parameters": sizes[layer],
                            "trace": float(squares.mean()),
                            "standard_error": float(squares.std(ddof=1) / len(squares) ** 0.5),
                        }
                        for layer, squares in found.items()
                    ],
                }
            )

    return FisherTrace()


def rows(history: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What was measured, from the Trainer's history.

    Returns:
        rows of step, epoch, layer, parameters, trace and standard_error (of the mean over
        examples).
    """
    return [
        {"step": entry["step"], "epoch": entry["epoch"], **{key: layer[key] for key in _COLUMNS}}
        for entry in history
        for layer in entry.get(_KEY, ())
    ]
