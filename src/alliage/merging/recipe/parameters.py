"""What a parameter of a recipe may be, and its value for one tensor.

A value is written in one of three forms:

    weight: 0.5                          the same for every tensor
    weight: [0, 0.5, 1]                  a gradient: over the depth of the model
    weight:                              rules: the first whose filter is in the tensor's name
      - {filter: self_attn, value: [0, 1]}
      - {value: 0.5}

Pure: values and names in, values out. The forms are mergekit's, and so is what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from alliage.checkpoints.names import is_head, kind_of, layer_of
from alliage.errors import Problem, nearest
from alliage.merging.rules import wrong
from alliage.merging.signature import Parameter
from alliage.recipes import shown

RULE_KEYS = ("filter", "value")
_LARGEST = 2**64  # beyond it a whole number is a mistake, and Python's own may be endless
_BEFORE = re.compile(r"(^|[._])(pre|project_in)([._]|$)")

_PLAIN = {"type": ["boolean", "number", "string"]}
_PLAIN_OR_GRADIENT = [_PLAIN, {"type": "array", "items": _PLAIN, "minItems": 1}]
SCHEMA: dict[str, Any] = {  # JSON Schema of one parameter's value
    "anyOf": [
        *_PLAIN_OR_GRADIENT,
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "filter": {"type": "string", "minLength": 1},
                    "value": {"anyOf": _PLAIN_OR_GRADIENT},
                },
                "required": ["value"],
                "additionalProperties": False,
            },
        },
    ]
}


def resolve(value: Any, tensor: str, depth: float) -> Any:
    """A parameter's value for one tensor.

    A gradient of numbers is interpolated linearly between values at equal distances; one of
    anything else steps to the next value where that one's place is reached.

    Args:
        value: in any of the three forms, free of `problems`.
        tensor: the tensor's name, which filters are sought in.
        depth: in [0, 1], from `depth_of`.

    Returns:
        A plain value, or None where no rule speaks of this tensor.
    """
    if not isinstance(value, list):
        return value
    if is_rules(value):
        rule = next((rule for rule in value if rule.get("filter", "") in tensor), None)
        return None if rule is None else resolve(rule["value"], tensor, depth)
    place = depth * (len(value) - 1)
    below = int(place)
    if not all(_is_number(each) for each in value):
        return value[below]
    above = min(below + 1, len(value) - 1)
    share = place - below
    return (1 - share) * value[below] + share * value[above]


def problems(value: Any, declared: Parameter, where: str) -> list[Problem]:
    """What is wrong with a value in any of the three forms, number by number.

    Args:
        value: as the recipe has it.
        declared: the method's declaration of the parameter.
        where: the value's path in the recipe, such as "models[1].parameters.weight".
    """
    if not isinstance(value, list):
        return list(_wrong(value, declared, where))
    if not value:
        return [Problem(where, "is an empty list.", "Give one value, or several over the depth.")]
    if not any(isinstance(each, dict) for each in value):
        return list(_wrong_gradient(value, declared, where))
    return [
        problem
        for number, rule in enumerate(value)
        for problem in _wrong_rule(rule, declared, f"{where}[{number}]", number < len(value) - 1)
    ]


def is_rules(value: Any) -> bool:
    """Whether a value has the form of rules by the tensor's name."""
    return isinstance(value, list) and any(isinstance(first, dict) for first in value[:1])


def depth_of(name: str, layers: int, *, first: int = 0, dialect: str = "paper") -> float:
    """How deep in the model a tensor stands, in [0, 1], for gradients.

    Layer i of n stands at i / (n − 1). What comes before the layers (embeddings) stands at 0, and
    what comes after them (final norms, heads) at 1. The only layer of a stack stands at 0.

    mergekit (0.1.5, `plan.py`) differs in two places, and the dialect "mergekit" follows it: all
    tensors outside the layers stand at 0, those after them too, and an only layer stands at 1.

    Args:
        name: the tensor's name.
        layers: n, of the stack that the tensor stands in, or of its slice of the output.
        first: the output's layer that the slice begins with.
        dialect: the recipe's.
    """
    layer = layer_of(name)
    if layer is not None:
        return (layer - first) / (layers - 1) if layers > 1 else float(dialect == "mergekit")
    return float(dialect != "mergekit" and not _comes_first(name))


def _comes_first(name: str) -> bool:
    """Whether a tensor outside the layers works on what enters them."""
    if is_head(name):
        return False
    return kind_of(name) == "embedding" or _BEFORE.search(name) is not None


def _wrong_gradient(value: list[Any], declared: Parameter, where: str) -> Iterator[Problem]:
    if declared.kind is int and len(value) > 1:
        fix = "Give one, or rules by the tensor's name."
        yield Problem(where, f"{declared.name} is a whole number, which has no gradient.", fix)
    for number, each in enumerate(value):
        yield from _wrong(each, declared, f"{where}[{number}]")


def _wrong_rule(rule: Any, declared: Parameter, where: str, more: bool) -> Iterator[Problem]:
    if not isinstance(rule, dict):
        what = f"is {shown(rule)}, but others in this list are rules (filter, value)."
        yield Problem(where, what, f"Write it as {{value: {shown(rule)}}}.")
        return
    for key in rule:
        if key not in RULE_KEYS:
            yield Problem(where, f"unknown key {key!r}.", nearest(str(key), RULE_KEYS))
    name = rule.get("filter")
    if "filter" in rule and (not isinstance(name, str) or not name):
        fix = "Give a part of tensors' names, or leave filter out for all others."
        yield Problem(f"{where}.filter", f"must be text, got {shown(name)}.", fix)
    if "filter" not in rule and more:
        fix = "Put the rule without a filter last."
        yield Problem(where, "has no filter, so that the rules after it never apply.", fix)
    if "value" not in rule:
        yield Problem(where, "has no value.", "Write value: beside filter:.")
    elif is_rules(rule["value"]):
        yield Problem(f"{where}.value", "holds rules itself.", "Give a number or a list of them.")
    else:
        yield from problems(rule["value"], declared, f"{where}.value")


def _wrong(value: Any, declared: Parameter, where: str) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        yield Problem(where, "is one rule.", "Write a list of rules: - {filter: ..., value: ...}.")
    elif isinstance(value, list):
        yield Problem(where, "is a list inside a list.", "Give one value here.")
    elif _is_number(value) and abs(value) >= _LARGEST and int in (type(value), declared.kind):
        yield Problem(where, "is too large a number.")
    elif what := wrong(declared, value):
        yield Problem(where, f"{what}, got {shown(value)}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
