"""Gradient clipping: by the norm of all gradients together, or each value on its own."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alliage.tuning.science._settings import Settings


class ClippingSettings(Settings):
    """What a gradient is cut to before a step; both may be set, the norm goes first."""

    norm: float | None = Field(
        default=None,
        gt=0,
        description="Of all gradients together, which keep their direction (arXiv:1211.5063); "
        "off by default.",
    )
    value: float | None = Field(
        default=None,
        gt=0,
        description="Of each on its own, which turns their direction; off by default.",
    )


def by_value(largest: float) -> Any:
    """A callback that cuts every gradient to [−largest, largest] before each step."""
    import torch
    from transformers import TrainerCallback

    class ClipByValue(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            torch.nn.utils.clip_grad_value_(model.parameters(), largest)

    return ClipByValue()
