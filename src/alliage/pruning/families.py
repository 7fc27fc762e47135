"""Where an architecture's layers lie in its files and what else in it depends on their number.

Names are those of files on disk: transformers may use others in memory.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alliage.checkpoints import TensorSpec
from alliage.errors import AlliageError, Problem

Config = Mapping[str, Any]
_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


def _nothing_implied(_config: Config, _n_layers: int) -> dict[str, list[Any]]:
    return {}


def _nothing_in_the_way(_config: Config, _keep: Sequence[int]) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Family:
    """Architectures whose layers are stored alike.

    Attributes:
        stack: the end of the module list's name; at most one name, such as "bert", stands before.
        count: config.json's key for the number of layers.
        implied: (config, n_layers) -> settings, one entry for each layer, that the architecture
            derives from the depth where config.json is silent: a shallower model would get others.
        obstacle: (config, keep) -> why keeping these layers would change what they compute.
    """

    stack: str
    count: str = "num_hidden_layers"
    implied: Callable[[Config, int], dict[str, list[Any]]] = _nothing_implied
    obstacle: Callable[[Config, Sequence[int]], str] = _nothing_in_the_way


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of one checkpoint.

    Attributes:
        name: the module list's full name, "bert.encoder.layer".
        n_layers: how many there are, numbered from 0 without holes.
    """

    name: str
    n_layers: int

    def split(self, tensor: str) -> tuple[int, str] | None:
        """A tensor's layer and its name inside it; None outside the stack."""
        match = re.match(rf"{re.escape(self.name)}\.(\d+)\.(.+)$", tensor)
        return (int(match[1]), match[2]) if match else None

    def join(self, layer: int, rest: str) -> str:
        """The name of a layer's tensor."""
        return f"{self.name}.{layer}.{rest}"


def _sliding_but_every(
    key: str | None, default: int, *, phase: int
) -> Callable[[Config, int], dict[str, list[Any]]]:
    """Sliding attention, but full where (layer + phase) is a multiple of config's `key`."""

    def implied(config: Config, n_layers: int) -> dict[str, list[Any]]:
        every = config.get(key, default) if key else default
        kinds = ("full_attention", "sliding_attention")
        return {"layer_types": [kinds[(i + phase) % every != 0] for i in range(n_layers)]}

    return implied


def _smollm3(config: Config, n_layers: int) -> dict[str, list[Any]]:
    every = config.get("no_rope_layer_interval", 4)
    rotary = config.get("no_rope_layers") or [int((i + 1) % every != 0) for i in range(n_layers)]
    sliding = config.get("use_sliding_window") and config.get("sliding_window") is not None
    kinds = ("full_attention", "sliding_attention")
    return {
        "no_rope_layers": rotary,
        "layer_types": [kinds[bool(sliding and not rotates)] for rotates in rotary],
    }


def _gpt2(config: Config, keep: Sequence[int]) -> str:
    if config.get("scale_attn_by_inverse_layer_idx") and list(keep) != list(range(len(keep))):
        return (
            "scale_attn_by_inverse_layer_idx divides each layer's attention by its number, so a "
            "layer that moves up computes something else: only the first layers can stay"
        )
    return ""


def _modernbert(_config: Config, keep: Sequence[int]) -> str:
    if 0 not in keep:
        return (
            "layer 0 has no attn_norm and every other layer has one, so no other can come first: "
            "layer 0 must stay"
        )
    return ""


_ENCODER = Family("encoder.layer")
_DECODER = Family("layers")

# By config.json's model_type.
FAMILIES: Mapping[str, Family] = {
    "bert": _ENCODER,
    "camembert": _ENCODER,
    "deit": _ENCODER,
    "electra": _ENCODER,
    "mpnet": _ENCODER,
    "roberta": _ENCODER,
    "vit": _ENCODER,
    "xlm-roberta": _ENCODER,
    "distilbert": Family("transformer.layer", "n_layers"),
    "gpt2": Family("h", "n_layer", obstacle=_gpt2),
    "gemma": _DECODER,
    "llama": _DECODER,
    "mistral": _DECODER,
    "olmo2": _DECODER,
    "phi3": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "gemma2": Family("layers", implied=_sliding_but_every(None, 2, phase=1)),
    "gemma3_text": Family(
        "layers", implied=_sliding_but_every("sliding_window_pattern", 6, phase=1)
    ),
    "smollm3": Family("layers", implied=_smollm3),
    "modernbert": Family(
        "layers",
        implied=_sliding_but_every("global_attn_every_n_layers", 3, phase=0),
        obstacle=_modernbert,
    ),
}  # fmt: skip

_REFUSED = {
    "albert": "all its layers are one set of weights, so there is none to remove",
}


def find(specs: Mapping[str, TensorSpec], config: Config, where: str) -> tuple[Family, Stack]:
    """The family of a checkpoint and its layers.

    Args:
        specs: its tensors.
        config: its config.json.
        where: its name in problems.

    Raises:
        AlliageError: an architecture that cannot lose layers or whose layers are not certain, or
            weights that contradict config.json.
    """
    model_type = str(config.get("model_type"))
    if model_type in _REFUSED:
        raise AlliageError(Problem(where, f"is of type {model_type}: {_REFUSED[model_type]}."))
    family = FAMILIES.get(model_type)
    if family is None:
        return _infer(specs, config, where)
    stacks = _numbered(specs, rf"(?:\w+\.)?{re.escape(family.stack)}")
    if len(stacks) != 1:
        found = ", ".join(stacks) or "none"
        expected = f"expected one stack of layers named [...].{family.stack}.0, found {found}"
        what = f"{expected}, in a checkpoint of type {model_type}."
        raise AlliageError(Problem(where, what))
    ((name, layers),) = stacks.items()
    _check_count(name, layers, config, family.count, where)
    return family, Stack(name, len(layers))


def _infer(specs: Mapping[str, TensorSpec], config: Config, where: str) -> tuple[Family, Stack]:
    """An architecture that is not in the table, if nothing about it can be misread."""

    def refused(why: str) -> AlliageError:
        what = f"is of the type {config.get('model_type')!r}, which is not known, and {why}."
        return AlliageError(Problem(where, what, f"Known: {', '.join(sorted(FAMILIES))}."))

    parts = [key for key, value in config.items() if isinstance(value, dict) and _is_model(value)]
    if config.get("is_encoder_decoder") or parts:
        raise refused(f"consists of several models ({', '.join(parts) or 'encoder, decoder'})")
    counts = [key for key in _COUNTS if key in config]
    if len(counts) != 1:
        raise refused(f"config.json has {', '.join(counts) or 'none'} of {', '.join(_COUNTS)}")
    stacks = _numbered(specs, ".*?")
    if len(stacks) != 1:
        raise refused(f"expected one list of numbered modules, found {', '.join(stacks) or 'none'}")
    ((name, layers),) = stacks.items()
    _check_count(name, layers, config, counts[0], where)
    stack = Stack(name, len(layers))
    forms: defaultdict[int, set[tuple[Any, ...]]] = defaultdict(set)
    for spec in specs.values():
        if inside := stack.split(spec.name):
            forms[inside[0]].add((inside[1], spec.shape, spec.dtype))
    unlike = [layer for layer in layers if forms[layer] != forms[0]]
    if unlike:
        raise refused(f"layer {unlike[0]} holds other tensors than layer 0")
    listed = [
        key
        for key, value in config.items()
        if isinstance(value, list) and len(value) == stack.n_layers > 1
    ]
    if listed:
        raise refused(f"{', '.join(listed)} may have one entry for each layer")
    return Family(name, counts[0]), stack


def _is_model(part: Config) -> bool:
    return "model_type" in part or any(key in part for key in _COUNTS)


def _numbered(names: Iterable[str], path: str) -> dict[str, list[int]]:
    """Module lists whose name matches `path`, with the sorted numbers of their members."""
    pattern = re.compile(rf"({path})\.(\d+)\.")
    found: defaultdict[str, set[int]] = defaultdict(set)
    for name in names:
        if match := pattern.match(name):
            found[match[1]].add(int(match[2]))
    return {name: sorted(numbers) for name, numbers in sorted(found.items())}


def _check_count(name: str, layers: list[int], config: Config, count: str, where: str) -> None:
    holes = sorted(set(range(layers[-1] + 1)) - set(layers))
    if holes:
        what = f"its layers go up to {layers[-1]}, but {', '.join(map(str, holes))} are not there."
        raise AlliageError(Problem(f"{where}: {name}", what, "The checkpoint is incomplete."))
    problems = [
        Problem(
            f"{where}: config.json",
            f"{key} is {config[key]!r}, the weights hold {len(layers)} layers ({name}).",
            "Config and weights belong to different models.",
        )
        for key in dict.fromkeys((count, _COUNTS[0]))  # some classes read both
        if key in config and config[key] != len(layers)
    ]
    if problems:
        raise AlliageError(problems)
