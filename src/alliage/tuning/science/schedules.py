"""How the learning rate moves over the steps of a run: transformers' schedules, and torch's."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field

from alliage.errors import Problem, UsageError
from alliage.tuning.science._settings import Variant

Name = Literal["constant", "linear", "noam", "triangular", "cosine"]


class ScheduleSettings(Variant):
    """A schedule; warm-up is the recipe's own key, except for noam."""

    _belongs: ClassVar = {
        "noam": ("width", "warmup_steps"),
        "triangular": ("floor", "cycles"),
        "cosine": ("floor",),
    }

    name: Name = Field(
        description="constant; linear to 0; noam, rising as t, then falling as 1/√t "
        "(arXiv:1706.03762); triangular, up and down in cycles (arXiv:1506.01186); cosine to a "
        "floor (arXiv:2203.15556)."
    )
    floor: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="The lowest rate as a share of the peak: cosine, triangular.",
    )
    cycles: int = Field(default=3, ge=1, description="Of triangular, over the whole run.")
    width: int | None = Field(
        default=None, ge=1, description="d of noam; the model's own by default."
    )
    warmup_steps: int = Field(default=4000, ge=1, description="τ of noam.")


def noam_peak(width: int, warmup_steps: int) -> float:
    """The highest rate of noam, 1/√(dτ), at step τ.

    >>> round(noam_peak(512, 4000), 10)
    0.0006987712
    """
    return 1 / math.sqrt(width * warmup_steps)


def trainer_arguments(settings: ScheduleSettings, width: int | None) -> dict[str, Any]:
    """What `TrainingArguments` has to say for a schedule.

    Args:
        settings: of the schedule.
        width: of the model, for noam: hidden units of a layer.

    Returns:
        arguments; noam sets the learning rate and the warm-up, triangular is left to
        `triangular`.

    Raises:
        UsageError: noam, and nobody says how wide the model is.
    """
    if settings.name == "noam":
        chosen = settings.width or width
        if chosen is None:
            raise UsageError(
                Problem("schedule: noam", "the model's configuration names no width.", "Set width.")
            )
        return {
            "lr_scheduler_type": "inverse_sqrt",
            "learning_rate": noam_peak(chosen, settings.warmup_steps),
            "warmup_steps": settings.warmup_steps,
        }
    if settings.name == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": settings.floor},
        }
    names = {"constant": "constant_with_warmup", "linear": "linear", "triangular": "constant"}
    return {"lr_scheduler_type": names[settings.name]}


def triangular(settings: ScheduleSettings, optimizer: Any, steps: int) -> Any:
    """The cyclic schedule of torch: from the floor up to the optimiser's rate, and back.

    Args:
        settings: of the schedule.
        optimizer: whose rates are the peaks.
        steps: of the whole run.
    """
    from torch.optim.lr_scheduler import CyclicLR

    peaks = [group["lr"] for group in optimizer.param_groups]
    return CyclicLR(
        optimizer,
        base_lr=[settings.floor * peak for peak in peaks],
        max_lr=peaks,
        step_size_up=steps / (2 * settings.cycles),  # type: ignore[arg-type]  # shares work
        cycle_momentum=False,  # Adam has none to cycle
    )
