"""Optimisers from torch and torch-optimi, and how weight decay enters them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from alliage.tuning.science._settings import Variant

Name = Literal["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "lion"]
_BETAS = {"adam": (0.9, 0.999), "adamw": (0.9, 0.999), "lion": (0.9, 0.99)}
_DECOUPLED = ("adamw", "lion")  # by their definition


class OptimizerSettings(Variant):
    """An optimiser. Defaults are those of its paper.

    Departures of course 002 from these: its momentum averages, (1 − β)∇ + βv, where torch's sums,
    ∇ + βv, so that a rate there is (1 − β) times that rate here; it writes √(v̂ + ε) for Adam, where
    the paper and torch have √v̂ + ε; and it lets Lion step by sign(c_t), where arXiv:2302.06675
    has the sign of c_{t+1}, which knows the present gradient.
    """

    _belongs: ClassVar = {
        "momentum": ("momentum",),
        "adagrad": ("epsilon",),
        "rmsprop": ("decay_rate", "epsilon"),
        "adam": ("betas", "epsilon"),
        "adamw": ("betas", "epsilon"),
        "lion": ("betas",),
    }

    name: Name = Field(description="The optimiser.")
    decay: Literal["decoupled", "l2"] | None = Field(
        default=None,
        description="How weight_decay acts: on the weights (arXiv:1711.05101), or through the "
        "gradient; decoupled for adamw and lion, l2 for the others by default.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="β of momentum.")
    betas: tuple[float, float] | None = Field(
        default=None, description="β₁ and β₂ of adam and adamw (0.9, 0.999) and lion (0.9, 0.99)."
    )
    decay_rate: float = Field(
        default=0.99, ge=0, lt=1, description="α of rmsprop's squared gradients."
    )
    epsilon: float | None = Field(
        default=None, gt=0, description="Beside the root; 1e-8, of adagrad 1e-10 by default."
    )

    @model_validator(mode="after")
    def _what_exists(self) -> Self:
        if self.decay == "l2" and self.name in _DECOUPLED:
            instead = "name: adam is that" if self.name == "adamw" else "lion has no such form"
            raise ValueError(f"{self.name} decays decoupled by definition; {instead}")
        if self.decay == "decoupled" and self.name in ("adam", "adagrad", "rmsprop"):
            instead = "name: adamw is that" if self.name == "adam" else "no library has that form"
            raise ValueError(f"{self.name} with decoupled weight decay: {instead}")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        return self

    @property
    def decoupled(self) -> bool:
        """Whether weight decay acts on the weights themselves."""
        return (self.decay or ("decoupled" if self.name in _DECOUPLED else "l2")) == "decoupled"


def build(settings: OptimizerSettings, learning_rate: float) -> tuple[Any, dict[str, Any]]:
    """An optimiser's class and arguments, as the Trainer takes them.

    The Trainer adds weight decay by groups of parameters: none on biases and norms.

    Args:
        settings: of the optimiser.
        learning_rate: at its peak.
    """
    import torch

    arguments: dict[str, Any] = {"lr": learning_rate}
    if settings.name in _BETAS:
        arguments["betas"] = settings.betas or _BETAS[settings.name]
    if settings.epsilon is not None:
        arguments["eps"] = settings.epsilon
    if settings.name in ("sgd", "momentum"):
        if settings.name == "momentum":
            arguments["momentum"] = settings.momentum
        if not settings.decoupled:
            return torch.optim.SGD, arguments
        import optimi

        return optimi.SGD, arguments | {"decouple_wd": True}
    if settings.name == "lion":
        import optimi

        return optimi.Lion, arguments
    if settings.name == "rmsprop":
        return torch.optim.RMSprop, arguments | {"alpha": settings.decay_rate}
    classes = {
        "adagrad": torch.optim.Adagrad,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    return classes[settings.name], arguments
