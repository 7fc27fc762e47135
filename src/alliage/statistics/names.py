"""From a model in memory to the names in its files, which merges go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.names import align


def in_file(
    model: Any, checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A tensor for each weight, renamed, and cut or joined, as the weights are in their files.

    Args:
        model: of transformers, which may name weights otherwise than the files it came from.
        checkpoint: the files.
        tensors: of the shapes of parameters and buffers, by their names in the model.

    Returns:
        by the names in the files; without task heads that lie elsewhere.
    """
    from transformers.core_model_loading import revert_weight_conversion

    named: dict[int, torch.Tensor] = {
        id(own): tensors[name]
        for name, own in (*model.named_parameters(), *model.named_buffers())
        if name in tensors
    }
    everywhere = {  # under both names where two are tied
        name: named[id(parameter)]
        for name, parameter in model.state_dict(keep_vars=True).items()
        if id(parameter) in named
    }
    reverted: dict[str, torch.Tensor] = revert_weight_conversion(model, everywhere)
    specs = checkpoint.specs()
    return {
        name: reverted[given]
        for name, given in align(specs, reverted).pairs.items()
        if name not in checkpoint.ties and reverted[given].shape == specs[name].shape
    }


def sources(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """For each weight of the files, what it became in the model, or a part of it.

    That is a parameter, or a buffer of floating point.
    """
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = [name for name, own in held.items() if own.is_floating_point()]
    numbered = {
        name: torch.tensor(float(number)).expand(held[name].shape)
        for number, name in enumerate(names)
    }
    found = in_file(model, checkpoint, numbered)
    return {
        name: names[int(tensor.flatten()[0])] for name, tensor in found.items() if tensor.numel()
    }
