"""Parameters of a merge method, as its signature and its docstring declare them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:  # torch takes a second to load, and merges by compiled kernels do without it
    from torch import Tensor

    PerModelNumber = float | Tensor
else:
    PerModelNumber = float | Any


_BY_POSITION = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)
_SUPPLIED = ("uniform", "signs", "apply", "fisher", "grams")  # by the engine
_KINDS = (
    "bool, int, float, a Literal of words, any of them Annotated with In(low, high), or "
    "Annotated[PerModelNumber, PerModel()]; what a first pass supplies is None by default"
)


@dataclass(frozen=True, slots=True)
class In:
    """A parameter's range.

    Attributes:
        low, high: its ends, included unless `open_low` says otherwise for the lower one.
    """

    low: float
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return bool(above and value <= self.high and math.isfinite(value))

    def __str__(self) -> str:
        left = "(" if self.open_low or math.isinf(self.low) else "["
        right = ")" if math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True, slots=True)
class PerModel:
    """Marks a parameter that has one value for each model; the function gets them as [n].

    Attributes:
        shares: whether they are divided by their sum, so that one of them must not be zero.
    """

    shares: bool = False


@dataclass(frozen=True, slots=True)
class Factor:
    """Marks the parameter that a method multiplies its result with at last, in float32.

    The result is that of 1 times the parameter, to the bit, so that a search need not merge again.
    """


@dataclass(frozen=True, slots=True)
class Rule:
    """Marks a parameter that names another method, whose parameters then stand beside it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter of a method."""

    name: str
    kind: type
    default: Any
    range: In | None
    choices: tuple[str, ...]
    per_model: bool
    meaning: str
    shares: bool = False
    factor: bool = False
    rule: bool = False

    def check(self, value: Any) -> str:
        """What is wrong with a value, or nothing; of a rule see `rules.wrong`."""
        if self.rule:
            return "" if isinstance(value, str) else "must name a method"
        if self.choices:
            return "" if value in self.choices else f"must be one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "" if isinstance(value, bool) else "must be true or false"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        number = number and math.isfinite(value)
        if not number or (self.kind is int and value != int(value)):
            return "must be a whole number" if self.kind is int else "must be a finite number"
        if self.range is not None and value not in self.range:
            return f"must be in {self.range}"
        return ""

    def extremes(self) -> list[Any]:
        """All choices, or the ends that belong to the range; of counts the lower one alone."""
        if self.kind is bool:
            return [False, True]
        if self.range is None:
            return list(self.choices)
        low, high = self.range.low, self.range.high
        ends: tuple[float, ...] = (low, high)
        if self.kind is int:
            ends = ()
            if math.isfinite(low):
                ends = (math.floor(low) + 1 if self.range.open_low else math.ceil(low),)
        return [end for end in ends if end in self.range]

    def typed(self, value: Any) -> Any:
        """A value that `check` takes in the parameter's own kind: the seeds 1 and 1.0 are one."""
        return int(value) if self.kind is int and isinstance(value, float) else value


def declared(function: Callable[..., Any], *, tensors: int, passes: bool) -> dict[str, Parameter]:
    """The keyword parameters that users set; others are what the engine or passes supply.

    Args:
        function: of a method.
        tensors: how many arguments it takes by position.
        passes: whether a first pass or a guess supplies some, whose default is None.

    Raises:
        ValueError: a parameter that nobody could set, or of a kind that cannot be declared.
    """
    hints = get_type_hints(function, localns={"Tensor": Any}, include_extras=True)
    meanings = _meanings(inspect.getdoc(function) or "")
    parameters = inspect.signature(function).parameters
    placed = [name for name, each in parameters.items() if each.kind in _BY_POSITION]
    if len(placed) != tensors:
        what = f"takes {', '.join(placed) or 'nothing'} by position"
        fix = f"expected {tensors}, then * and the parameters"
        raise ValueError(f"{function.__module__}.{function.__qualname__} {what}: {fix}.")
    declared = {}
    for name, parameter in parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        hint = hints.get(name)
        kind, *marks = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        if not _declarable(kind, marks):
            if name in _SUPPLIED or (passes and not marks and parameter.default is None):
                continue
            shown = inspect.formatannotation(parameter.annotation)
            found = f"{name}: {shown}" if name in hints else f"{name} has no hint"
            raise ValueError(
                f"{function.__module__}.{function.__qualname__}: {found}; parameters are {_KINDS}."
            )
        declared[name] = Parameter(
            name=name,
            kind=float if kind == PerModelNumber else kind,
            default=parameter.default,
            range=next((mark for mark in marks if isinstance(mark, In)), None),
            choices=get_args(kind) if get_origin(kind) is Literal else (),
            per_model=any(isinstance(mark, PerModel) for mark in marks),
            meaning=meanings.get(name, ""),
            shares=any(isinstance(mark, PerModel) and mark.shares for mark in marks),
            factor=any(isinstance(mark, Factor) for mark in marks),
            rule=any(isinstance(mark, Rule) for mark in marks),
        )
    return declared


def _declarable(kind: Any, marks: list[Any]) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    if any(isinstance(mark, Rule) for mark in marks):
        return kind is str
    return kind in (bool, int, float) or (kind == PerModelNumber and bool(marks))


def _meanings(doc: str) -> dict[str, str]:
    """The Args section of a docstring: name -> text."""
    section = re.search(r"^Args:\n((?: {4,}.*\n?|\n)+)", doc, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): ((?:.*\n?)(?: {8,}.*\n?)*)", section[1], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
