"""Recipes as files: one to search from, and the best one, which `alliage merge` takes as it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from alliage import recipes
from alliage.merging.recipe.files import SEARCH, recipe_of_file, split_lora
from alliage.merging.recipe.schema import MergeRecipe
from alliage.search.space import Space, parse_spaces

BEST = "best.yml"


def load_search(path: Path) -> tuple[MergeRecipe, tuple[Space, ...]]:
    """A recipe and what its section `search` tries, nothing where it has none.

    Raises:
        UsageError: the file cannot be read, or what it says is wrong.
    """
    content = recipes.read_yaml(path)
    section = content.pop(SEARCH, None) if isinstance(content, dict) else None
    recipe = recipe_of_file(content, path)
    return recipe, () if section is None else parse_spaces(section, recipe, str(path))


def write_best(recipe: MergeRecipe, folder: Path, comments: Sequence[str]) -> Path:
    """Write a recipe as `best.yml`; paths in it count from the folder.

    Args:
        recipe: what to write.
        folder: where to; it exists.
        comments: lines above it.
    """
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    content = {"method": recipe.method, **content}
    for part, keys in (
        (content, ("base", "tokenizer", "signs")),
        *((entry, ("model", "statistics")) for entry in _entries(content)),
    ):
        for key in keys:
            if part.get(key) is not None and (key, part[key]) != ("tokenizer", "base"):
                part[key] = _seen_from(folder, part[key])
    text = "".join(f"# {line}\n" for line in comments)
    text += yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    partial = folder / f".{BEST}"
    partial.write_text(text, encoding="utf-8")
    return partial.replace(folder / BEST)


def _entries(content: dict[str, Any]) -> list[dict[str, Any]]:
    slices = [entry for part in content.get("slices", ()) for entry in part["models"]]
    return [*content.get("models", ()), *slices]


def _seen_from(folder: Path, ref: str) -> str:
    """A reference with its local paths as they are from a folder."""
    parts = [part for part in split_lora(ref) if part is not None]
    return "+".join(
        os.path.relpath(part, folder) if recipes.exists(Path(), part) else part for part in parts
    )
