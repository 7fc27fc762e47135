"""The inputs of linear layers: E xxᵀ and E x, from one pass over the data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

BYTES = 8  # of an entry, float64


@dataclass(slots=True)
class Inputs:
    """What a layer's inputs x were so far.

    Attributes:
        gram: Σ xxᵀ [d, d], float64.
        total: Σ x [d].
        count: of inputs: one for each token of a text.
    """

    gram: torch.Tensor
    total: torch.Tensor
    count: int = 0

    @classmethod
    def none(cls, size: int, device: torch.device) -> Inputs:
        """Nothing seen."""
        zeros = torch.zeros(size, size, dtype=torch.float64, device=device)
        return cls(zeros, zeros[0].clone())

    def add(self, inputs: torch.Tensor) -> None:
        """Add inputs [..., d]."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).double()
        self.gram.addmm_(rows.mT, rows)
        self.total += rows.sum(0)
        self.count += len(rows)

    def mean_gram(self) -> torch.Tensor:
        """E xxᵀ [d, d], float32; zeros where nothing was seen."""
        return (self.gram / max(self.count, 1)).float().cpu()

    def mean(self) -> torch.Tensor:
        """E x [d], float32."""
        return (self.total / max(self.count, 1)).float().cpu()


def linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The layers that are y = Wx + b, by name, in the order of the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) or is_transposed(module)
    }


def is_transposed(module: torch.nn.Module) -> bool:
    """Whether a layer stores its weight as [in, out]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def input_size(module: torch.nn.Module) -> int:
    """How many inputs a linear layer has."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    return int(weight.shape[0] if is_transposed(module) else weight.shape[1])


@contextlib.contextmanager
def watched(layers: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, Inputs]]:
    """Collect the inputs of some layers while the block runs their model."""
    found: dict[str, Inputs] = {}
    handles = []
    for name, layer in layers.items():
        weight: torch.Tensor = layer.weight  # type: ignore[assignment]
        found[name] = Inputs.none(input_size(layer), weight.device)

        def see(_: Any, given: tuple[torch.Tensor, ...], name: str = name) -> None:
            found[name].add(given[0])

        handles.append(layer.register_forward_pre_hook(see))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def packed(layers: Mapping[str, torch.nn.Module], memory: int) -> list[list[str]]:
    """Layers in groups whose Grams fit into some bytes together; each group takes a pass."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, layer in layers.items():
        size = BYTES * input_size(layer) ** 2
        if groups[-1] and filled + size > memory:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def same_lengths(rows: Sequence[Mapping[str, Any]], batch_size: int) -> Iterator[list[int]]:
    """Indices of rows that need no padding together: padding would count as inputs."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        key = tuple(len(row[part]) for part in ("input_ids", "labels") if _is_list(row.get(part)))
        groups.setdefault(key, []).append(index)
    for chosen in groups.values():
        for start in range(0, len(chosen), batch_size):
            yield chosen[start : start + batch_size]


def run(
    model: Any,
    batches: Iterable[Mapping[str, torch.Tensor]],
    on_batch: Callable[[int], None] = lambda _: None,
) -> None:
    """Show a model all batches, without gradients."""
    for batch in batches:
        with torch.inference_mode():
            model(**{key: value.to(model.device) for key, value in batch.items()})
        on_batch(len(next(iter(batch.values()))))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence)
