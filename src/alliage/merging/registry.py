"""What a merge method is, and the registry of them.

A method is one pure function on plain tensors with a decorator that says what it needs:

    @method("average", unit="block", space="weight", paper="arXiv:2203.05482")
    def average(
        weights: Tensor, *, weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0
    ) -> Tensor: ...

The decorator returns the function unchanged. The parameters' kinds, defaults and ranges are read
from its signature, their meaning from its docstring: they are declared once.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from alliage.errors import Problem, UsageError, nearest

Unit = Literal["block", "factors"]
Space = Literal["weight", "delta"]
Function = TypeVar("Function", bound=Callable[..., Any])
PerModelNumber = float | Tensor

ENTRY_POINTS = "alliage.merge_methods"


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
    """Marks a parameter that has one value for each model; the function gets them as [n]."""


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

    def check(self, value: Any) -> str:
        """What is wrong with a value, or nothing."""
        if self.choices:
            return "" if value in self.choices else f"must be one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "" if isinstance(value, bool) else "must be true or false"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind is int and number and value != int(value):
            number = False
        if not number or not math.isfinite(value):
            return "must be a whole number" if self.kind is int else "must be a finite number"
        if self.range is not None and value not in self.range:
            return f"must be in {self.range}"
        return ""


class FirstPass(Protocol):
    """A streaming reduction over the whole model that runs before a block method.

    Made with (number of models, elements of the whole vector, **parameters). The engine shows it
    some slices (`sample`), then all blocks (`update`, from any thread), and asks for the `result`:
    keyword arguments for the method, or None where all blocks must be seen once more.
    """

    def __init__(self, models: int, numel: int, **parameters: Any) -> None: ...
    @classmethod
    def memory(cls, models: int, sampled: int) -> int: ...  # noqa: D102  bytes, at the most
    def sample(self, deltas: Tensor) -> None: ...  # noqa: D102
    def update(self, deltas: Tensor) -> None: ...  # noqa: D102
    def result(self) -> Mapping[str, Any] | None: ...  # noqa: D102


class Guess(Protocol):
    """A global quantity that few elements need: guessed first, counted while merging.

    Made with the method's arguments. `update` sees each block and says whether its result depends
    on the guess; if in the end `settled` differs from `arguments`, only such blocks are redone.
    """

    arguments: Mapping[str, Any]

    def __init__(self, **arguments: Any) -> None: ...
    def update(self, deltas: Tensor) -> bool: ...  # noqa: D102
    def settled(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Method:
    """A registered merge method.

    Attributes:
        name: as users write it.
        function: the definition, callable on plain tensors.
        unit: "block": elementwise over aligned flat blocks, tensors [n, elements];
            "factors": on LoRA factors of one module, never their product.
        space: "delta": gets tuned − base; "weight": gets the weights themselves.
        paper: where it comes from.
        departures: where and why it differs from the paper; empty where it does not.
        first_pass: a reduction over the whole model that it needs first.
        guess: a global quantity that it guesses and settles while merging.
        parameters: name -> declaration.
        summary: the docstring's first line.
    """

    name: str
    function: Callable[..., Any]
    unit: Unit
    space: Space
    paper: str
    departures: str
    first_pass: type[FirstPass] | None
    guess: type[Guess] | None
    parameters: Mapping[str, Parameter]
    summary: str


_REGISTRY: dict[str, Method] = {}


def method(
    name: str,
    *,
    unit: Unit,
    space: Space,
    paper: str,
    departures: str = "",
    first_pass: type[FirstPass] | None = None,
    guess: type[Guess] | None = None,
) -> Callable[[Function], Function]:
    """Register a merge method; the function itself stays as it is.

    Raises:
        ValueError: the name is taken by another function.
    """

    def register(function: Function) -> Function:
        known = _REGISTRY.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise ValueError(f"{name!r} is already the merge method {known.function.__module__}")
        _REGISTRY[name] = Method(
            name=name,
            function=function,
            unit=unit,
            space=space,
            paper=paper,
            departures=departures,
            first_pass=first_pass,
            guess=guess,
            parameters=_declared(function),
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
        )
        return function

    return register


def list_methods() -> list[str]:
    """The names of all methods, plug-ins included, in alphabetical order."""
    return sorted(_loaded())


def get_method(name: str) -> Callable[..., Any]:
    """A method's function.

    Raises:
        UsageError: no method of that name; with the nearest names.
    """
    return describe(name).function


def describe(name: str) -> Method:
    """A method's registration.

    Raises:
        UsageError: no method of that name; with the nearest names.
    """
    methods = _loaded()
    if name not in methods:
        raise UsageError(
            Problem("method", f"there is no merge method {name!r}.", nearest(name, methods))
        )
    return methods[name]


def per_model(values: PerModelNumber, like: Tensor) -> Tensor:
    """One value for each model, [n, 1, ...], to multiply with `like` [n, ...]."""
    column = torch.as_tensor(values, dtype=like.dtype, device=like.device).expand(len(like))
    return column.reshape(-1, *(1,) * (like.ndim - 1))


def weighted_sum(tensors: Tensor, weight: PerModelNumber) -> Tensor:
    """Σ wᵢtᵢ over [n, ...], in the order of the models.

    Products and sums are rounded one by one, so that an element's value does not depend on where in
    a block it stands.
    """
    weights = per_model(weight, tensors)
    total = tensors[0] * weights[0]
    for tensor, factor in zip(tensors[1:], weights[1:], strict=True):
        total += tensor * factor
    return total


@cache
def _load_all() -> None:
    """Import every built-in method and every plug-in, once."""
    from alliage.merging import methods

    for module in pkgutil.iter_modules(methods.__path__):
        importlib.import_module(f"{methods.__name__}.{module.name}")
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()


def _loaded() -> Mapping[str, Method]:
    _load_all()
    return _REGISTRY


def _declared(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The keyword parameters with declared kinds; others are what passes supply."""
    hints = get_type_hints(function, include_extras=True)
    meanings = _meanings(inspect.getdoc(function) or "")
    declared = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        hint = hints[name]
        kind, *marks = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        if not marks and get_origin(kind) is not Literal and kind not in (bool, int, float):
            continue
        declared[name] = Parameter(
            name=name,
            kind=float if kind == PerModelNumber else kind,
            default=parameter.default,
            range=next((mark for mark in marks if isinstance(mark, In)), None),
            choices=get_args(kind) if get_origin(kind) is Literal else (),
            per_model=any(isinstance(mark, PerModel) for mark in marks),
            meaning=meanings.get(name, ""),
        )
    return declared


def _meanings(doc: str) -> dict[str, str]:
    """The Args section of a docstring: name -> text."""
    section = re.search(r"^Args:\n((?: {4,}.*\n?|\n)+)", doc, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): ((?:.*\n?)(?: {8,}.*\n?)*)", section[1], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
