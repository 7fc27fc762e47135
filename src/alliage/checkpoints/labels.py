"""The names of a classifier's labels, as a configuration gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"\d{1,9}")
_UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls labels without names


def config_labels(config: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The label names in the order of the outputs; None where nobody named them.

    transformers leaves `id2label` out for two labels without names, and calls others LABEL_0, ...:
    neither says what a model decides.
    """
    given = (config or {}).get("id2label")
    if not isinstance(given, Mapping) or not all(map(_NUMBER.fullmatch, map(str, given))):
        return None
    by_number = {int(key): str(label) for key, label in given.items()}
    return named(by_number[key] for key in sorted(by_number))


def named(labels: Any) -> tuple[str, ...] | None:
    """Labels as a tuple; None where they are missing or only numbered."""
    names = tuple(map(str, labels or ()))
    return names if names and not all(map(_UNNAMED.fullmatch, names)) else None


def head_outputs(shapes: Mapping[str, Sequence[int]]) -> int:
    """How many outputs a head has, by its tensors: hidden layers of a head are square.

    >>> head_outputs({"pre_classifier.weight": (768, 768), "classifier.weight": (3, 768)})
    3
    """
    layers = [shape for _, shape in sorted(shapes.items()) if len(shape) == 2]
    for outputs, inputs in layers:
        if outputs != inputs:
            return outputs
    last = layers[-1] if layers else shapes[max(shapes)]
    return last[0] if last else 1
