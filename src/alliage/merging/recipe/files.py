"""Recipes from YAML, in this package's form or in mergekit's, and the references in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from alliage import recipes
from alliage.errors import Problem, UsageError
from alliage.merging.recipe.mergekit import from_mergekit, is_mergekit
from alliage.merging.recipe.schema import MergeRecipe, ModelEntry, SliceModel

SEARCH = "search"  # the section that `alliage search` reads
_SEARCH_NOTE = (
    "search: is left out, it is for `alliage search`, which writes best.yml to be merged; "
    "here the recipe's own parameters count."
)
_Entry = TypeVar("_Entry", ModelEntry, SliceModel)


def load_recipe(path: str | Path) -> MergeRecipe:
    """Read a recipe from a YAML file, in this package's form or in mergekit's.

    Relative paths count from the file's folder; mergekit's count from the working directory, and
    from the file's folder where nothing is there. A section `search` is left out, with a note.

    Raises:
        UsageError: the file cannot be read or the recipe is wrong; all problems at once.
    """
    path = Path(path)
    content = recipes.read_yaml(path)
    searched = isinstance(content, dict) and content.pop(SEARCH, None) is not None
    recipe = recipe_of_file(content, path)
    return recipe.with_notes([*recipe.notes, _SEARCH_NOTE]) if searched else recipe


def recipe_of_file(content: Any, path: Path) -> MergeRecipe:
    """Check a recipe that was read from a file, as `load_recipe` does."""
    recipe = parse_recipe(content, where=str(path))
    folders = [Path(), path.parent] if is_mergekit(content) else [path.parent]
    return _relative_to(folders, recipe)


def parse_recipe(content: Any, *, where: str = "recipe") -> MergeRecipe:
    """Check a recipe's content, in this package's form or in mergekit's.

    Raises:
        UsageError: unknown keys, missing keys, wrong types; all problems at once.
    """
    if is_mergekit(content):
        return from_mergekit(content, where)
    return recipes.parse(content, MergeRecipe, where)


def split_lora(ref: str) -> tuple[str, str | None]:
    """A model and the adapter to apply to it, from "model+adapter", each with its "@revision".

    What exists as it is stays whole, and so do parts of it: names of folders may have a "+". A
    URL's own "+" divides only where another URL or an existing path follows.

    >>> split_lora("org/model@v1.0+org/adapter")
    ('org/model@v1.0', 'org/adapter')

    Raises:
        UsageError: more than one "+" that might divide it.
    """
    return _split(ref, [Path()])


def _split(ref: str, folders: Sequence[Path]) -> tuple[str, str | None]:
    def exists(part: str) -> bool:
        return any(recipes.exists(folder, part) for folder in folders)

    if "+" not in ref or exists(ref):
        return ref, None
    places = [i for i, letter in enumerate(ref) if letter == "+" and 0 < i < len(ref) - 1]
    pairs = [(ref[:i], ref[i + 1 :]) for i in places]
    here = [pair for pair in pairs if exists(pair[0]) or exists(pair[1])]
    both = [pair for pair in here if exists(pair[0]) and exists(pair[1])]
    if "://" in ref:
        here = here or [pair for pair in pairs if re.match(r"[\w.-]+://", pair[1])]
        pairs = [pair for pair in pairs if "://" not in pair[0]]
    found = both or here or pairs
    if len(found) > 1:
        what = "has more than one + that may divide model and adapter."
        raise UsageError(Problem(ref, what, "Give folders that exist, or apply the adapter first."))
    return found[0] if found else (ref, None)


def _relative_to(folders: Sequence[Path], recipe: MergeRecipe) -> MergeRecipe:
    """The recipe with the paths that exist in one of the folders, the first one first."""

    def resolve(ref: str) -> str:
        model, adapter = _split(ref, folders)
        return "+".join(_found(folders, part) for part in (model, adapter) if part is not None)

    def entries(given: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
        return tuple(each.model_copy(update=found(each)) for each in given)

    def found(entry: ModelEntry | SliceModel) -> dict[str, str]:
        paths = {"model": resolve(entry.model)}
        if isinstance(entry, ModelEntry) and entry.statistics is not None:
            paths["statistics"] = _found(folders, entry.statistics)
        return paths

    return recipe.model_copy(
        update={
            "models": entries(recipe.models),
            "slices": tuple(
                part.model_copy(update={"models": entries(part.models)}) for part in recipe.slices
            ),
            "base": resolve(recipe.base) if recipe.base is not None else None,
            "signs": _found(folders, recipe.signs) if recipe.signs is not None else None,
            "tokenizer": "base" if recipe.tokenizer == "base" else resolve(recipe.tokenizer),
        }
    )


def _found(folders: Sequence[Path], ref: str) -> str:
    there = (recipes.resolve(folder, ref) for folder in folders if recipes.exists(folder, ref))
    return next(there, ref)
