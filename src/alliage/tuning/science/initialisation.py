"""How the weights of a model start, with torch's distributions and gains."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import init

from alliage.tuning.science._settings import Variant

Activation = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]


class InitialisationSettings(Variant):
    """Where the matrices and kernels of a model start; biases start at 0, the rest as it is.

    Variances of a weight: xavier gain² · 2/(fan_in + fan_out), kaiming gain² / fan, for both as
    a normal or a uniform distribution; orthogonal, gain times an orthogonal matrix; normal, std².
    """

    _belongs: ClassVar = {
        "xavier_normal": ("gain",),
        "xavier_uniform": ("gain",),
        "kaiming_normal": ("gain", "fan"),
        "kaiming_uniform": ("gain", "fan"),
        "orthogonal": ("gain",),
        "normal": ("std",),
    }

    name: Literal[
        "xavier_normal",
        "xavier_uniform",
        "kaiming_normal",
        "kaiming_uniform",
        "orthogonal",
        "normal",
    ] = Field(description="Of the distribution.")
    gain: Activation | float = Field(
        default="linear",
        description="A number, or the activation whose gain torch knows: relu is √2.",
    )
    fan: Literal["fan_in", "fan_out"] = Field(
        default="fan_in",
        description="Whether kaiming keeps the signal's variance or the gradient's.",
    )
    std: float = Field(default=0.02, gt=0, description="Of normal.")


def initialise(
    model: torch.nn.Module, settings: InitialisationSettings, generator: torch.Generator
) -> None:
    """Start the weights of every linear layer and convolution anew, and their biases at 0.

    Args:
        model: changed in place.
        settings: what to draw from.
        generator: where the draws come from.
    """
    kinds = torch.nn.Linear | torch.nn.modules.conv._ConvNd
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, kinds):
                draw(module.weight, settings, generator)
                if module.bias is not None:
                    module.bias.zero_()


def draw(
    weight: torch.Tensor, settings: InitialisationSettings, generator: torch.Generator
) -> None:
    """Fill a weight [out, in, ...] in place."""
    gain = settings.gain if isinstance(settings.gain, float) else init.calculate_gain(settings.gain)
    if settings.name == "normal":
        init.normal_(weight, std=settings.std, generator=generator)
    elif settings.name == "orthogonal":
        init.orthogonal_(weight, gain, generator=generator)
    elif settings.name == "xavier_normal":
        init.xavier_normal_(weight, gain, generator=generator)
    elif settings.name == "xavier_uniform":
        init.xavier_uniform_(weight, gain, generator=generator)
    else:
        fan = init._calculate_correct_fan(weight, settings.fan)
        std = gain / fan**0.5
        if settings.name == "kaiming_normal":
            init.normal_(weight, std=std, generator=generator)
        else:
            init.uniform_(weight, -(3**0.5) * std, 3**0.5 * std, generator=generator)
