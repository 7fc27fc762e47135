"""Minimum hyperspherical energy: neurons that point in different directions (arXiv:1805.09298)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from alliage.checkpoints.names import kind_of
from alliage.errors import Problem, UsageError, nearest
from alliage.tuning.science._settings import Settings

# Squared; nearer rows count as this far apart, and do not repel. Beyond what rounding in float32
# makes of rows that coincide.
_CLOSEST = 4e-6


class HypersphericalSettings(Settings):
    """A penalty on neurons that point the same way."""

    coefficient: float = Field(gt=0, description="Of the mean energy of a pair, in the loss.")
    power: Literal[0, 1, 2] = Field(
        default=2, description="s of ‖ŵᵢ − ŵⱼ‖⁻ˢ; for 0, −log ‖ŵᵢ − ŵⱼ‖."
    )
    modules: tuple[str, ...] = Field(
        default=("mlp",),
        min_length=1,
        description="Kinds of modules (mlp, query, head, ...), or ends of module names.",
    )


def energy(weight: torch.Tensor, power: int) -> torch.Tensor:
    """The hyperspherical energy of the rows of a matrix: Σ over ordered pairs of ‖ŵᵢ − ŵⱼ‖⁻ˢ.

    Args:
        weight: [n, d]; a neuron is a row. A kernel [n, ...] counts as [n, d].
        power: s; 0 means −log ‖ŵᵢ − ŵⱼ‖.

    Returns:
        a number, in the weight's type.

    >>> energy(torch.eye(3), power=2)
    tensor(3.)
    """
    directions = torch.nn.functional.normalize(weight.flatten(1), dim=1)
    squared = (directions @ directions.T).mul_(-2).add_(2).fill_diagonal_(1).clamp_min(_CLOSEST)
    if power == 0:
        return -squared.log().sum() / 2
    return (squared ** (-power / 2)).sum() - len(weight)  # the diagonal's ones


def penalty(weight: torch.Tensor, power: int) -> torch.Tensor:
    """The mean energy of a pair of rows; the paper adds those of all weights."""
    return energy(weight, power) / (len(weight) * (len(weight) - 1))


def chosen_weights(model: torch.nn.Module, modules: tuple[str, ...]) -> list[torch.Tensor]:
    """The trained weights [n > 1, ...] of the modules that kinds or ends of names mean.

    Raises:
        UsageError: one that means nothing; all of them.
    """
    weights = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter)
        and module.weight.requires_grad
        and module.weight.dim() > 1
        and len(module.weight) > 1
    }
    found: dict[str, torch.Tensor] = {}
    problems = []
    for wanted in modules:
        meant = {
            name: weight
            for name, weight in weights.items()
            if kind_of(name) == wanted or name == wanted or name.endswith(f".{wanted}")
        }
        found |= meant
        if not meant:
            known = {kind_of(name) for name in weights} - {"other"}
            known |= {name.rpartition(".")[2] for name in weights}
            problems.append(
                Problem(
                    f"hyperspherical_energy.modules: {wanted}",
                    "matches no trained weight.",
                    nearest(wanted, known),
                )
            )
    if problems:
        raise UsageError(problems)
    return list(found.values())


def callback(settings: HypersphericalSettings, model: torch.nn.Module) -> Any:
    """A callback that starts each step with the penalty's gradient, to which the loss adds its own.

    So the penalty counts once for a step, however many batches it accumulates, clipping sees the
    sum of both, and the loss that is reported stays the data's.

    Raises:
        UsageError: modules that match no trained weight.
    """
    from transformers import TrainerCallback

    weights = chosen_weights(model, settings.modules)

    class Repel(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            for weight in weights:  # one at a time: each needs memory for all its pairs
                (settings.coefficient * penalty(weight, settings.power)).backward()  # type: ignore[no-untyped-call]

    return Repel()
