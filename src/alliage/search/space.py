"""What a search tries: methods, and which of their parameters over which values.

In a recipe's own file, beside its models, or in a file of its own:

    search:
      method: ties                               # the recipe's own by default
      parameters:
        density: [0.1, 0.2, 0.3]                 # these values
        scale: {low: 0.8, high: 3.0, step: 0.1}  # from low to high
        weight: {low: 0, high: 1, each: true}    # one of its own for every model

Several methods are a list of such entries; one without parameters is tried as the recipe has it. A
preset stands for the grid of a paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    field_validator,
    model_validator,
)

from alliage import recipes
from alliage.errors import Problem, UsageError, nearest
from alliage.merging.recipe.files import SEARCH
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import describe
from alliage.merging.rules import wrong
from alliage.merging.signature import Parameter

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "yadav-2023-ties": {
        "method": "ties",
        "parameters": {
            "density": [0.1, 0.2, 0.3],
            "scale": {"low": 0.8, "high": 3.0, "step": 0.1},
        },
    },
    "yadav-2023-task-arithmetic": {
        "method": "task_arithmetic",
        "parameters": {"scale": {"low": 0.1, "high": 1.0, "step": 0.1}},
    },
}
DIGITS = 12  # of values at steps: 0.8 + 3 · 0.1 is 1.1
_Number = StrictInt | Annotated[float, Field(strict=True, allow_inf_nan=False)]

Values = tuple[Any, ...]
Point = tuple["Space", Mapping[str, Any]]  # and each parameter's value, or one for each model


class Range(BaseModel):
    """Values of one parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: _Number | None = Field(None, description="The smallest value.")
    high: _Number | None = Field(None, description="The largest value.")
    step: _Number | None = Field(None, description="Between values; any in between by default.")
    log: StrictBool = Field(False, description="Whether ratios count rather than differences.")
    values: tuple[Any, ...] = Field((), description="These, instead of low and high.")
    each: StrictBool = Field(False, description="A value of its own for every model.")

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, given: Any) -> Any:
        return {"values": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        ends = self.low is not None and self.high is not None
        if bool(self.values) == (self.low is not None or self.high is not None) or (
            not self.values and not ends
        ):
            raise ValueError("expected a list of values, or low and high")
        if self.values and (self.log or self.step is not None):
            raise ValueError("step and log go with low and high")
        if ends and not (self.low or 0) < (self.high or 0):
            raise ValueError("low must be below high")
        if self.step is not None and self.step <= 0:
            raise ValueError("step must be above 0")
        if self.log and (self.step is not None or (self.low or 0) <= 0):
            raise ValueError("log needs a low above 0, and no step")
        return self

    def grid(self, declared: Parameter) -> Values | None:
        """All values; nothing where they are endless."""
        if self.values:
            return self.values
        assert self.low is not None
        assert self.high is not None
        step = self.step or (1 if declared.kind is int and not self.log else None)
        if step is None:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(round(self.low + place * step, DIGITS) for place in range(count))

    def problems(self, declared: Parameter, where: str) -> Iterator[Problem]:
        """What is wrong with the values for a parameter."""
        if self.each and not declared.per_model:
            yield Problem(where, f"{declared.name} is one value for all models.", "Drop each.")
        if not self.values and declared.kind not in (int, float):
            what = "low and high are for numbers."
            yield Problem(where, what, f"List values, such as {declared.choices or 'true'}.")
            return
        listed = self.values or (self.low, self.high)
        found = [(value, wrong(declared, value)) for value in listed]
        if not any(problem for _, problem in found):  # between the ends a step may go wrong
            between = ((value, wrong(declared, value)) for value in self.grid(declared) or ())
            found = list(islice((each for each in between if each[1]), 1))
        for value, problem in found:
            if problem:
                yield Problem(where, f"{problem}, got {recipes.shown(value)}.")


class Space(BaseModel):
    """A method and the values of its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str | None = Field(None, description="The recipe's own by default.")
    parameters: dict[str, Range] = Field({}, description="Name -> values.")


class _Section(BaseModel):
    """The search section of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    search: tuple[Space, ...]

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get(SEARCH), dict):
            return {**given, SEARCH: [given[SEARCH]]}
        return given

    @field_validator(SEARCH)
    @classmethod
    def _not_empty(cls, given: tuple[Space, ...]) -> tuple[Space, ...]:
        if not given:  # said of nothing else: pydantic also says it where all entries are wrong
            raise ValueError("says nothing to try")
        return given


@dataclass(frozen=True)
class Search:
    """The points that a search may try.

    Attributes:
        recipe: the models, and parameters that all points share.
        spaces: one for each method, every one named.
    """

    recipe: MergeRecipe
    spaces: tuple[Space, ...]

    def __post_init__(self) -> None:
        """Check the values against the methods' declarations.

        Raises:
            UsageError: unknown methods or parameters, impossible values; all problems.
        """
        problems: list[Problem] = []
        for space in self.spaces:
            problems += self._problems(space)
        methods = [space.method for space in self.spaces]
        problems += [
            Problem(SEARCH, f"{method} is there twice.", "Put its parameters together.")
            for method in dict.fromkeys(methods)
            if methods.count(method) > 1
        ]
        if problems:
            raise UsageError(problems)

    def grid(self) -> list[Point] | None:
        """All points, those that cost least to change next to each other; nothing where endless."""
        points: list[Point] = []
        for space in self.spaces:
            axes = self.axes(space)
            grids = [values.grid(declared) for _, _, values, declared in axes]
            if any(grid is None for grid in grids):
                return None
            names = [axis[:2] for axis in axes]
            for chosen in product(*(grid for grid in grids if grid is not None)):
                points.append((space, gathered(names, chosen, len(self.recipe.models))))
        return points

    def ends(self) -> Iterator[MergeRecipe]:
        """The recipes of each method's first point, then of its last."""
        for end in (0, -1):
            for space in self.spaces:
                axes = self.axes(space)
                values = [(v.values or (v.low, v.high))[end] for _, _, v, _ in axes]
                names = [axis[:2] for axis in axes]
                yield self.recipe_at((space, gathered(names, values, len(self.recipe.models))))

    def axes(self, space: Space) -> list[tuple[str, int | None, Range, Parameter]]:
        """What may be set apart: (parameter, model or none, values, declaration).

        The parameter that a method multiplies its result with is the last: see `held.Held`.
        """
        declared = describe(str(space.method)).parameters
        ordered = sorted(space.parameters.items(), key=lambda item: declared[item[0]].factor)
        return [
            (name, model, values, declared[name])
            for name, values in ordered
            for model in (range(len(self.recipe.models)) if values.each else (None,))
        ]

    def recipe_at(self, point: Point) -> MergeRecipe:
        """The recipe of a point.

        Parameters that the recipe sets itself and that are not searched stay, as far as the point's
        method has them.
        """
        space, values = point
        declared = describe(str(space.method)).parameters
        own = {name: values[name] for name in values if not space.parameters[name].each}
        kept = {name: value for name, value in self.recipe.parameters.items() if name in declared}
        models = []
        for place, entry in enumerate(self.recipe.models):
            each = {name: values[name][place] for name in values if space.parameters[name].each}
            given = {name: v for name, v in entry.parameters.items() if name in declared} | each
            models.append(entry.model_copy(update={"parameters": given}))
        update = {"method": space.method, "parameters": kept | own, "models": tuple(models)}
        return self.recipe.model_copy(update=update)

    def _problems(self, space: Space) -> Iterator[Problem]:
        method = describe(str(space.method))
        for name, values in space.parameters.items():
            where = f"{SEARCH}: {method.name}.{name}"
            declared = method.parameters.get(name)
            if declared is None:
                what = f"{method.name} has no parameter {name!r}."
                yield Problem(where, what, nearest(name, method.parameters))
                continue
            yield from values.problems(declared, where)
            if values.each and not self.recipe.models:
                yield Problem(where, "each goes with models, not with slices.")
            places = [
                f"models[{i}]" for i, e in enumerate(self.recipe.models) if name in e.parameters
            ]
            places += [
                f"slices[{i}]" for i, e in enumerate(self.recipe.slices) if name in e.parameters
            ]
            for place in places:
                what = f"is searched, but {place} of the recipe sets it itself."
                yield Problem(where, what, "Leave it out there.")


def gathered(
    axes: Sequence[tuple[str, int | None]], values: Sequence[Any], models: int
) -> dict[str, Any]:
    """Values of single axes as a point has them: a list for what every model has of its own."""
    found: dict[str, Any] = {}
    for (name, model), value in zip(axes, values, strict=True):
        if model is None:
            found[name] = value
        else:
            found.setdefault(name, [None] * models)[model] = value
    return found


def parse_spaces(content: Any, recipe: MergeRecipe, where: str) -> tuple[Space, ...]:
    """Check what stands under `search`.

    Raises:
        UsageError: unknown keys, wrong values; all problems.
    """
    section = recipes.parse({SEARCH: content}, _Section, where)
    return tuple(s.model_copy(update={"method": s.method or recipe.method}) for s in section.search)


def preset_spaces(name: str, recipe: MergeRecipe) -> tuple[Space, ...]:
    """The grid of a paper.

    Raises:
        UsageError: no preset of that name; with the nearest.
    """
    if name not in PRESETS:
        raise UsageError(Problem("--preset", f"no preset {name!r}.", nearest(name, PRESETS)))
    return parse_spaces(dict(PRESETS[name]), recipe, f"preset {name}")


def read_spaces(path: Path, recipe: MergeRecipe) -> tuple[Space, ...]:
    """What a file of its own says under `search`.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    content = recipes.read_yaml(path)
    if not isinstance(content, dict) or set(content) != {SEARCH}:
        raise UsageError(Problem(str(path), "expected one key, search:."))
    return parse_spaces(content[SEARCH], recipe, str(path))
