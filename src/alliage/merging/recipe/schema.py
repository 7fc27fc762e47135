"""The merge recipe: YAML checked before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from alliage.errors import Problem, UsageError, nearest
from alliage.merging.recipe import parameters
from alliage.merging.recipe.dialects import Dialect, preset
from alliage.merging.registry import Method, describe, list_methods
from alliage.merging.rules import rule_of, ruled
from alliage.merging.signature import Parameter

DTypeName = Literal["float32", "float16", "bfloat16"]


def _ascending(layers: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= layers[0] < layers[1]:
        raise ValueError("expected [start, stop] with 0 <= start < stop")
    return layers


_Scope = Mapping[str, Any]
Value = Annotated[Any, WithJsonSchema(parameters.SCHEMA)]
Layers = Annotated[tuple[StrictInt, StrictInt], AfterValidator(_ascending)]


class ModelEntry(BaseModel):
    """One model of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        min_length=1,
        description="Folder, weight file, hub id or adapter folder; model+adapter for both.",
    )
    name: str | None = Field(
        None,
        pattern=r"^[^/\\.\s][^/\\]*$",  # it names a folder in the output
        description="Short name, fit for a folder; the model's own by default.",
    )
    parameters: dict[str, Value] = Field({}, description="Of this model, such as weight.")
    statistics: str | None = Field(
        None,
        min_length=1,
        description="File of alliage statistics, for methods that need one; by default "
        "METHOD.safetensors in the model's folder.",
    )


class SliceModel(BaseModel):
    """Some layers of a model, in a slice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="As under models.")
    layers: Layers = Field(description="[start, stop]: the layers start to stop − 1.")
    parameters: dict[str, Value] = Field({}, description="Of this model in this slice.")


class Slice(BaseModel):
    """Layers of the output, made of as many layers of each of its models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[SliceModel, ...] = Field(min_length=1, description="In the order of the merge.")
    parameters: dict[str, Value] = Field({}, description="Of the method in this slice.")

    @property
    def length(self) -> int:
        """How many layers of the output it makes."""
        start, stop = self.models[0].layers
        return stop - start

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        lengths = {entry.layers[1] - entry.layers[0] for entry in self.models}
        if len(lengths) > 1:
            raise ValueError(f"all models of a slice give equally many layers, found {lengths}")
        return self


def _entry(given: Any) -> Any:
    return {"model": given} if isinstance(given, str) else given


Entry = Annotated[ModelEntry, BeforeValidator(_entry, json_schema_input_type=str | ModelEntry)]


class MergeRecipe(BaseModel):
    """What to merge and how.

    Paths that are relative count from the folder of the recipe's file. A parameter is one value, a
    list of values over the depth of the model, or rules by the tensor's name: see
    `alliage.merging.recipe.parameters`. Where it is set more than once, the nearest counts: the
    model's, the slice's, the recipe's, the dialect's, the method's default.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"oneOf": [{"required": ["models"]}, {"required": ["slices"]}]},
    )

    method: str = Field(description="A name that `alliage methods` lists.")
    dialect: Dialect = Field("paper", description="Whose defaults and conventions are followed.")
    base: str | None = Field(None, min_length=1, description="The common ancestor of the models.")
    slices: tuple[Slice, ...] = Field((), description="Instead of models: layer after layer.")
    models: tuple[Entry, ...] = Field(
        (), validate_default=True, description="In the order of the merge."
    )
    parameters: dict[str, Value] = Field({}, description="Of the method.")
    signs: str | None = Field(
        None, min_length=1, description="File of signs that replace an election, for ties."
    )
    dtype: DTypeName | None = Field(None, description="Of the output; the base's own by default.")
    adapter: Literal[True] | None = Field(
        None, description="Of (IA)3 adapters, make one again, not a full model."
    )
    tokenizer: str = Field("base", description="Whose the output gets: base, or one of the models.")
    _notes: tuple[str, ...] = PrivateAttr(())

    @field_validator("models")
    @classmethod
    def _models_or_slices(
        cls, models: tuple[ModelEntry, ...], info: ValidationInfo
    ) -> tuple[ModelEntry, ...]:
        slices = info.data.get("slices")  # missing where they are wrong themselves
        if not models and slices == ():
            raise PydanticCustomError("missing", "Field required, or slices instead")
        if models and slices:
            raise ValueError("give models or slices, not both")
        return models

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading the recipe took differently from how it was written, for people."""
        return self._notes

    def with_notes(self, notes: Sequence[str]) -> MergeRecipe:
        """The same recipe with `notes`."""
        recipe = self.model_copy()
        recipe._notes = tuple(notes)
        return recipe

    @property
    def refs(self) -> tuple[str, ...]:
        """Every model's reference once, in the order of the recipe, without the base."""
        entries: list[ModelEntry | SliceModel] = [*self.models]
        entries += [entry for part in self.slices for entry in part.models]
        return tuple(dict.fromkeys(entry.model for entry in entries))

    def settings(self) -> tuple[Method, dict[str, Any]]:
        """The method and those of its arguments that are the same for every tensor.

        Defaults are filled in, per-model ones are lists in the order of the recipe. What depends
        on the tensor or its slice is left out: `arguments_for` has it.

        Raises:
            UsageError: an unknown method, unknown or impossible parameters; all of them.
        """
        method = self._method()
        problems = list(self._problems(method))
        if problems:
            raise UsageError(problems)
        arguments: dict[str, Any] = {}
        for key, declared in method.parameters.items():
            first, *others = [
                [_written(key, declared, scopes) for scopes in self._scopes(declared, index)]
                for index in self._slice_indices()
            ]
            if any(isinstance(value, list) for value in first) or any(o != first for o in others):
                continue
            arguments[key] = first if declared.per_model else first[0]
        weight = arguments.get("weight")
        if isinstance(weight, list) and math.fsum(map(abs, weight)) == 0:
            raise UsageError(Problem("weight", "all weights are zero."))
        return method, arguments

    def arguments_for(
        self,
        tensor: str,
        depth: float,
        *,
        slice_index: int | None = None,
        sources: Sequence[str] = (),
    ) -> dict[str, Any]:
        """All arguments of the method for one tensor, plain values; per-model ones as lists.

        Args:
            tensor: the output's name of it.
            depth: in [0, 1], from `parameters.depth_of`.
            slice_index: of the slice that the tensor is in, for recipes with slices: lists have
                the order of its models, and of the recipe's models otherwise.
            sources: each model's own name of the tensor, which the filters of per-model values
                are sought in, where a slice moves layers; `tensor` by default.

        Raises:
            UsageError: an unknown method.
            ValueError: a recipe with slices and no `slice_index`, or the other way round.
        """
        if (slice_index is None) == bool(self.slices):
            raise ValueError("slice_index goes with recipes that have slices")
        arguments: dict[str, Any] = {}
        for key, declared in self._method().parameters.items():
            scopes = self._scopes(declared, slice_index)
            names = sources if sources and declared.per_model else [tensor] * len(scopes)
            values = [
                _value(key, declared, each, name, depth)
                for each, name in zip(scopes, names, strict=True)
            ]
            arguments[key] = values if declared.per_model else values[0]
        return arguments

    def varies(self) -> bool:
        """Whether some argument depends on the tensor or on its slice."""
        method, arguments = self.settings()
        return len(arguments) < len(method.parameters)

    def _method(self) -> Method:
        given = {**preset(self.dialect, self.method), **self.parameters}
        return ruled(describe(self.method), given)

    def _problems(self, method: Method) -> Iterator[Problem]:
        given: list[tuple[str, _Scope, bool]] = [("", self.parameters, False)]
        given += [(f"models[{i}].", each.parameters, True) for i, each in enumerate(self.models)]
        for i, part in enumerate(self.slices):
            given.append((f"slices[{i}].", part.parameters, False))
            given += [
                (f"slices[{i}].models[{j}].", each.parameters, True)
                for j, each in enumerate(part.models)
            ]
        for place, values, of_model in given:
            where = f"{place}parameters"
            for key, value in values.items():
                declared = method.parameters.get(key)
                if declared is None:
                    what = f"{method.name} has no parameter {key!r}."
                    yield Problem(where, what, nearest(key, method.parameters))
                elif declared.rule and isinstance(value, list):
                    fix = "Name it without a list or rules by the tensor's name."
                    yield Problem(where, f"{key} is one method for all tensors.", fix)
                elif of_model and not declared.per_model:
                    fix = "Set it under the recipe's own parameters."
                    yield Problem(where, f"{key} is one value for all models.", fix)
                else:
                    yield from parameters.problems(value, declared, f"{where}.{key}")
        for i, entry in enumerate(self.models):
            if entry.statistics is not None and method.statistics is None:
                what = f"{method.name} needs no statistics."
                yield Problem(f"models[{i}].statistics", what, "Leave it out.")
        if self.tokenizer != "base" and self.tokenizer not in (*self.refs, self.base):
            what = f"{self.tokenizer!r} is none of the recipe's models."
            yield Problem("tokenizer", what, nearest(self.tokenizer, ["base", *self.refs]))
        if self.signs is not None and not method.takes_signs:
            takers = [name for name in list_methods() if describe(name).takes_signs]
            what = f"{method.name} elects no signs that a file could replace."
            yield Problem("signs", what, f"Merge by {' or '.join(takers)}, or leave it out.")
        if self.signs is not None and self.slices:
            yield Problem("signs", "are a whole model's: slices take none.", "Give models.")
        if method.space == "delta":
            for i, part in enumerate(self.slices):
                if len({entry.layers for entry in part.models}) > 1:
                    what = f"its models give different layers, but {method.name} compares each "
                    fix = "Give the same layers of all of them."
                    yield Problem(f"slices[{i}]", what + "with the base's layer of its place.", fix)

    def _presets(self) -> list[_Scope]:
        """The dialect's parameters: of the method, then of its rule."""
        own = preset(self.dialect, self.method)
        rule = rule_of(describe(self.method), {**own, **self.parameters})
        return [own] if rule is None else [own, preset(self.dialect, rule.name)]

    def _slice_indices(self) -> Sequence[int | None]:
        return range(len(self.slices)) if self.slices else (None,)

    def _scopes(self, declared: Parameter, slice_index: int | None) -> list[list[_Scope]]:
        """Where a parameter may be set, the nearest first: once for each model, or once for all."""
        shared: list[_Scope] = [self.parameters]
        if slice_index is not None:
            shared.insert(0, self.slices[slice_index].parameters)
        shared += self._presets()
        if not declared.per_model:
            return [shared]
        entries = self.models if slice_index is None else self.slices[slice_index].models
        return [[entry.parameters, *shared] for entry in entries]


def _written(key: str, declared: Parameter, scopes: Sequence[_Scope]) -> Any:
    value = next((scope[key] for scope in scopes if key in scope), declared.default)
    return declared.typed(value)


def _value(key: str, declared: Parameter, scopes: Sequence[_Scope], name: str, depth: float) -> Any:
    """The nearest value whose rules, where it has some, speak of the tensor."""
    for scope in scopes:
        if key in scope:
            value = parameters.resolve(scope[key], name, depth)
            if value is not None:
                return declared.typed(value)
    return declared.default
