"""Early and late dropout: a rate that depends on the step (arXiv:2303.01500)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from alliage.errors import Problem, UsageError
from alliage.tuning.science._settings import Settings

Place = tuple[torch.nn.Module, str]


class RateSettings(Settings):
    """A rate over the steps of a run.

    Early is on up to the cut-off, late from it on. arXiv:2303.01500 counts the cut-off in epochs
    (50 of 300 for early dropout); here it is a share of the run.
    """

    rate: float = Field(ge=0, lt=1, description="The highest probability to drop.")
    mode: Literal["standard", "early", "late"] = Field(
        default="standard", description="All the time, up to the cut-off, or from it on."
    )
    cutoff: float = Field(
        default=0.5, gt=0, lt=1, description="A share of all steps: early and late."
    )
    shape: Literal["constant", "linear"] = Field(
        default="constant", description="Of the early phase: the rate, or from the rate down to 0."
    )

    @field_validator("shape")
    @classmethod
    def _linear_is_early(cls, shape: str, info: Any) -> str:
        if shape == "linear" and info.data.get("mode") != "early":
            raise ValueError("linear goes with mode: early")
        return shape


class DropoutSettings(RateSettings):
    """Dropout on every place of the model that has any; `lora.dropout` stays what it is."""


def rate_at(settings: RateSettings, step: int, steps: int) -> float:
    """The rate in force at a step.

    Args:
        settings: of the rate.
        step: from 0.
        steps: of the whole run.

    >>> rate_at(RateSettings(rate=0.3, mode="early", cutoff=0.4, shape="linear"), 1, 10)
    0.2
    """
    if settings.mode == "standard":
        return settings.rate
    early = round(settings.cutoff * steps)
    if settings.mode == "late":
        return settings.rate if step >= early else 0.0
    if step >= early:
        return 0.0
    if settings.shape == "constant" or early == 1:
        return settings.rate
    return round(settings.rate * (1 - step / (early - 1)), 12)


def places(model: torch.nn.Module) -> list[Place]:
    """Where a model keeps its dropout probabilities: module and attribute.

    The layers for dropout, and the numbers that attention takes along ("attention_dropout"), but
    not what PEFT adds for the inputs of an adapter.
    """
    found: list[Place] = []
    for path, module in model.named_modules():
        if "lora_dropout" in path.split("."):
            continue
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            found.append((module, "p"))
        else:
            found += [
                (module, name)
                for name, value in vars(module).items()
                if "dropout" in name and type(value) in (int, float)
            ]
    return found


def set_rate(where: Sequence[Place], rate: float) -> None:
    """Let every place drop with this probability."""
    for module, name in where:
        setattr(module, name, rate)


def callback(settings: DropoutSettings, model: torch.nn.Module) -> Any:
    """A callback that sets the rate before each step.

    Raises:
        UsageError: the model has no dropout.
    """
    from transformers import TrainerCallback

    where = places(model)
    if not where:
        raise UsageError(
            Problem("dropout", f"{type(model).__name__} has no place for it.", "Leave it out.")
        )

    class Dropout(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            set_rate(where, rate_at(settings, state.global_step, state.max_steps))

    return Dropout()
