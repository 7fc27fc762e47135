"""What config.json says of single layers, for a model whose layers come from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# Lists with a value for each layer; other lists stay as they are, whatever their length.
_LAYERWISE = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers")
_NESTED = "text_config"


def obstacle(config: Mapping[str, Any]) -> str:
    """Why the layers of a model with this configuration cannot be stacked; nothing if they can."""
    parts = _parts(config)
    if any(p.get("num_decoder_layers") or p.get("is_encoder_decoder") for p in parts):
        return "is an encoder-decoder: its two stacks of layers are not told apart."
    if not any(_counts(part) for part in parts):
        return f"its config.json has no number of layers under {', '.join(_COUNTS)}."
    return ""


def restacked(
    config: Mapping[str, Any], layers: Sequence[tuple[Mapping[str, Any], int]]
) -> dict[str, Any]:
    """The settings of a stack of other layers: their number, and lists with a value for each.

    Args:
        config: free of an `obstacle`; its text_config is treated alike.
        layers: the configuration of the model that each layer comes from, and its number there.
    """
    new = dict(config)
    for key in _counts(config):
        new[key] = len(layers)
    for key in _LAYERWISE:
        if isinstance(config.get(key), list):
            given = [(_setting(donor, key) or config[key], layer) for donor, layer in layers]
            if all(layer < len(values) for values, layer in given):
                new[key] = [values[layer] for values, layer in given]
    if isinstance(config.get(_NESTED), dict):
        new[_NESTED] = restacked(config[_NESTED], layers)
    return new


def _counts(config: Mapping[str, Any]) -> list[str]:
    return [key for key in _COUNTS if isinstance(config.get(key), int)]


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    nested = config.get(_NESTED)
    return [config, nested] if isinstance(nested, dict) else [config]


def _setting(config: Mapping[str, Any], key: str) -> Any:
    """A setting, from wherever the configuration has it."""
    return next((part[key] for part in _parts(config) if part.get(key)), None)
