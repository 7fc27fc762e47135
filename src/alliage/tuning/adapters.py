"""Which modules LoRA adapts, and which are trained and saved whole beside it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from alliage.checkpoints.names import KINDS, kind_of, layer_of
from alliage.data import Kind
from alliage.errors import Problem, UsageError, nearest
from alliage.tuning.recipe import LoraSettings

_TASK_TYPES = {
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "image-classification": None,  # PEFT has none
}


def add_lora(
    model: torch.nn.Module, settings: LoraSettings, kind: Kind, fresh: Collection[str]
) -> Any:
    """Put LoRA factors on a model; its own weights stay as they are, `fresh` ones are trained.

    Args:
        model: transformers' model.
        settings: rank, α and targets.
        kind: of the task.
        fresh: parameters that the base's files lack: the task's head.

    Raises:
        UsageError: targets that name no linear module of the model; all of them.
    """
    from peft import LoraConfig, get_peft_model

    linear = _linear_modules(model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilised,
        target_modules=resolve_targets(settings.targets, linear),
        modules_to_save=fresh_modules(model, fresh) or None,
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in linear.values()),
        task_type=_TASK_TYPES[kind],
    )
    return get_peft_model(model, config)


def resolve_targets(targets: Collection[str], modules: Collection[str]) -> list[str]:
    """Kinds and names as the ends of module names by which PEFT finds them.

    Args:
        targets: kinds of modules in the stack ("query"), or ends of module names ("q_proj").
        modules: the names of the model's linear modules.

    Raises:
        UsageError: targets that match nothing; all of them.
    """
    ends: set[str] = set()
    problems = []
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in modules):
            ends.add(target)
        elif found := {
            _in_layer(n) for n in modules if layer_of(n) is not None and kind_of(n) == target
        }:
            ends |= found
        else:
            known = {kind_of(name) for name in modules} & set(KINDS)
            known |= {name.rpartition(".")[2] for name in modules}
            problems.append(
                Problem(f"lora.targets: {target}", "matches no module.", nearest(target, known))
            )
    if problems:
        raise UsageError(problems)
    return sorted(ends)


def fresh_modules(model: torch.nn.Module, fresh: Collection[str]) -> list[str]:
    """The largest modules all of whose parameters are fresh."""
    parameters = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for name in fresh:
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            module = ".".join(parts[:depth])
            if all(other in fresh for other in parameters if other.startswith(module + ".")):
                found.add(module)
                break
    return sorted(found)


def _linear_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }


def _in_layer(name: str) -> str:
    """A module's name inside its layer: "attention.q_proj" of "vit.layers.3.attention.q_proj"."""
    return name.split(f".{layer_of(name)}.", maxsplit=1)[1]
