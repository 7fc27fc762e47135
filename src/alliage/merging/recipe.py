"""The merge recipe: YAML checked before anything is opened."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from alliage import recipes
from alliage.errors import Problem, UsageError, nearest
from alliage.merging.registry import Method, describe

DTypeName = Literal["float32", "float16", "bfloat16"]


class ModelEntry(BaseModel):
    """One model of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="Folder, weight file, hub id or adapter folder.")
    name: str | None = Field(
        None,
        pattern=r"^[^/\\.\s][^/\\]*$",  # it names a folder in the output
        description="Short name, fit for a folder; the model's own by default.",
    )
    parameters: dict[str, Any] = Field({}, description="Parameters of this model, such as weight.")


class MergeRecipe(BaseModel):
    """What to merge and how.

    Paths that are relative count from the folder of the recipe's file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(description="A name that `alliage methods` lists.")
    base: str | None = Field(None, description="The common ancestor of the models.")
    models: tuple[ModelEntry, ...] = Field(min_length=1, description="In the order of the merge.")
    parameters: dict[str, Any] = Field({}, description="Parameters of the method.")
    dtype: DTypeName | None = Field(None, description="Of the output; the base's own by default.")

    @field_validator("models", mode="before")
    @classmethod
    def _short_form(cls, models: Any) -> Any:
        if not isinstance(models, list | tuple):
            return models
        return [{"model": entry} if isinstance(entry, str) else entry for entry in models]

    def settings(self) -> tuple[Method, dict[str, Any]]:
        """The method and its arguments with defaults filled in; per-model ones as lists.

        Raises:
            UsageError: an unknown method, unknown or impossible parameters; all of them.
        """
        method = describe(self.method)
        problems = []
        given = [("parameters", key, value) for key, value in self.parameters.items()]
        given += [
            (f"models[{number}].parameters", key, value)
            for number, entry in enumerate(self.models)
            for key, value in entry.parameters.items()
        ]
        for where, key, value in given:
            declared = method.parameters.get(key)
            if declared is None:
                what = f"{method.name} has no parameter {key!r}."
                problems.append(Problem(where, what, nearest(key, method.parameters)))
            elif where != "parameters" and not declared.per_model:
                fix = "Set it under the recipe's own parameters."
                problems.append(Problem(where, f"{key} is one value for all models.", fix))
            elif wrong := declared.check(value):
                problems.append(Problem(f"{where}.{key}", f"{wrong}, got {value!r}."))
        if problems:
            raise UsageError(problems)
        arguments: dict[str, Any] = {}
        for key, declared in method.parameters.items():
            default = self.parameters.get(key, declared.default)
            arguments[key] = (
                [entry.parameters.get(key, default) for entry in self.models]
                if declared.per_model
                else default
            )
            if declared.per_model and key == "weight" and math.fsum(map(abs, arguments[key])) == 0:
                problems.append(Problem("weight", "all weights are zero."))
        if problems:
            raise UsageError(problems)
        return method, arguments


def load_recipe(path: str | Path) -> MergeRecipe:
    """Read a recipe from a YAML file; its relative paths become relative to the file.

    Raises:
        UsageError: the file cannot be read or the recipe is wrong; all problems at once.
    """
    path = Path(path)
    recipe = parse_recipe(recipes.read_yaml(path), where=str(path))
    return _relative_to(path.parent, recipe)


def parse_recipe(content: Any, *, where: str = "recipe") -> MergeRecipe:
    """Check a recipe's content.

    Raises:
        UsageError: unknown keys, missing keys, wrong types; all problems at once.
    """
    return recipes.parse(content, MergeRecipe, where)


def _relative_to(folder: Path, recipe: MergeRecipe) -> MergeRecipe:
    resolve = partial(recipes.resolve, folder)
    entries = tuple(
        entry.model_copy(update={"model": resolve(entry.model)}) for entry in recipe.models
    )
    base = resolve(recipe.base) if recipe.base is not None else None
    return recipe.model_copy(update={"models": entries, "base": base})
