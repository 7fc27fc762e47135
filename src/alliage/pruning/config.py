"""config.json of a model that lost some of its layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alliage.errors import AlliageError, Problem
from alliage.pruning.families import Family, Stack

# Outputs of a backbone, named by layer: without the layer there is no such output.
_OUTPUTS = ("out_indices", "out_features")


def reindexed(
    config: Mapping[str, Any], family: Family, stack: Stack, keep: Sequence[int], where: str
) -> dict[str, Any]:
    """config.json for the kept layers; what does not speak of layers stays as it was.

    Args:
        config: of the whole model.
        family: what in it depends on the layers.
        stack: its layers.
        keep: the layers that stay, ascending.
        where: the file's name in problems.

    Raises:
        AlliageError: keys that cannot be carried over; all of them.
    """
    new, problems = dict(config), []
    try:
        for key, values in family.implied(config, stack.n_layers).items():
            if new.get(key) is None:
                new[key] = values
    except (TypeError, ZeroDivisionError) as error:
        what = f"its attention pattern is unreadable: {error}."
        problems.append(Problem(where, what))
    for key, carry in _LAYERWISE.items():
        if new.get(key):
            try:
                new[key] = carry(new[key], keep, stack.n_layers)
            except (AttributeError, LookupError, TypeError, ValueError):
                found = f"{key} does not fit {stack.n_layers} layers: {config.get(key)!r}."
                problems.append(Problem(where, found, "Correct config.json first."))
    problems += [
        Problem(where, f"{key} asks for the outputs of layers: {new[key]}.", "Remove it first.")
        for key in _OUTPUTS
        if new.get(key)
    ]
    quantised = re.search(rf"\b{re.escape(stack.name)}\.\d+\b", str(new.get("quantization_config")))
    if quantised:
        what = f"quantization_config names single layers, such as {quantised[0]}: not supported."
        problems.append(Problem(where, what, "Prune the model before it is quantised."))
    if problems:
        raise AlliageError(problems)
    if "num_hidden_layers" in new:  # beside the family's own key, where both are written
        new["num_hidden_layers"] = len(keep)
    new[family.count] = len(keep)
    return new


def _one_for_each(values: list[Any], keep: Sequence[int], n_layers: int) -> list[Any]:
    if len(values) != n_layers:
        raise ValueError
    return [values[layer] for layer in keep]


def _by_number(values: dict[str, Any], keep: Sequence[int], _n_layers: int) -> dict[str, Any]:
    found = {int(layer): value for layer, value in values.items()}
    return {str(new): found[old] for new, old in enumerate(keep) if old in found}


def _numbers(layers: list[int], keep: Sequence[int], _n_layers: int) -> list[int]:
    return [new for new, old in enumerate(keep) if old in layers]


def _first(count: int, keep: Sequence[int], _n_layers: int) -> int:
    return sum(layer < count for layer in keep)


# How transformers' configurations speak of single layers.
_LAYERWISE: Mapping[str, Callable[[Any, Sequence[int], int], Any]] = {
    "layer_types": _one_for_each,
    "mlp_layer_types": _one_for_each,
    "layers_block_type": _one_for_each,
    "no_rope_layers": _one_for_each,
    "per_layer_config": _by_number,
    "pruned_heads": _by_number,
    "mlp_only_layers": _numbers,
    "cross_attention_layers": _numbers,
    "max_window_layers": _first,
    "first_k_dense_replace": _first,
}
