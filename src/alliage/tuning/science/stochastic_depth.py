"""Stochastic depth: examples skip whole layers in training (arXiv:1603.09382)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from alliage.checkpoints.names import layer_of
from alliage.errors import AlliageError, Problem, UsageError
from alliage.tuning.science.dropout import RateSettings, rate_at

_DECODER = re.compile(r"(^|\.)decoder\.")


class StochasticDepthSettings(RateSettings):
    """Rates rise with depth, from 0 at the first layer of a stack to `rate` at the last."""

    rate: float = Field(ge=0, lt=1, description="The last layer's probability to be skipped.")


class StochasticDepth:
    """Layers that examples skip at random while they train.

    The output becomes input + mask / (1 − p) · (layer(input) − input), with one mask for each
    example: in expectation the layer's own. Outside training nothing changes, and neither do the
    names of weights.

    Attributes:
        rates: the probability of each layer, in order; to be set.
    """

    def __init__(self, layers: Sequence[torch.nn.Module]) -> None:
        self.rates = [0.0] * len(layers)
        self._layers = list(layers)
        for index, layer in enumerate(layers):
            layer.forward = self._wrap(index, layer)

    def remove(self) -> None:
        """Give the layers their own forward back."""
        for layer in self._layers:
            del layer.forward  # the class's own remains

    def _wrap(self, index: int, layer: torch.nn.Module) -> Any:
        forward = layer.forward

        def skipping(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            rate = self.rates[index]
            if not layer.training or rate == 0:
                return output
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            if before.shape != after.shape:
                raise AlliageError(
                    Problem(
                        "stochastic_depth",
                        f"{type(layer).__name__} makes {list(after.shape)} of "
                        f"{list(before.shape)}: it cannot be skipped.",
                    )
                )
            mixed = before + drop_path(after - before, rate)
            return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

        return skipping


def drop_path(residual: torch.Tensor, rate: float) -> torch.Tensor:
    """A branch [n, ...] that is 0 for some examples and divided by 1 − rate for the others."""
    keep = 1 - rate
    mask = residual.new_empty(residual.shape[0], *(1,) * (residual.dim() - 1))
    return residual * mask.bernoulli_(keep).div_(keep)


def rates_by_depth(rate: float, layers: int) -> list[float]:
    """From 0 at the first layer to the rate at the last, as timm has it.

    >>> rates_by_depth(0.3, 4)
    [0.0, 0.1, 0.2, 0.3]
    """
    return [round(rate * index / max(1, layers - 1), 12) for index in range(layers)]


def stacks(model: torch.nn.Module) -> list[list[torch.nn.Module]]:
    """The layers of a model's encoder and of its decoder, in order; those inside layers are not."""
    found: dict[bool, list[torch.nn.Module]] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.rpartition(".")[2].isdigit() and layer_of(name) is not None:
            if name.startswith(inside) and inside:
                continue
            inside = (*inside, f"{name}.")
            found.setdefault(bool(_DECODER.search(name)), []).append(module)
    return list(found.values())


def callback(settings: StochasticDepthSettings, model: torch.nn.Module) -> Any:
    """A callback that lets examples skip layers from the start of training to its end.

    Raises:
        UsageError: the model has no stack of layers.
    """
    from transformers import TrainerCallback

    found = stacks(model)
    if not found:
        raise UsageError(
            Problem("stochastic_depth", f"{type(model).__name__} has no stack of layers.")
        )

    class Skip(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.skipped = [StochasticDepth(layers) for layers in found]

        def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            rate = rate_at(settings, state.global_step, state.max_steps)
            for stack in self.skipped:
                stack.rates = rates_by_depth(rate, len(stack.rates))

        def on_train_end(self, *_: Any, **__: Any) -> None:
            for stack in self.skipped:
                stack.remove()

    return Skip()
