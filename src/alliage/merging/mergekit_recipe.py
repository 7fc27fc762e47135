"""mergekit's YAML as a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alliage.errors import Problem, UsageError

if TYPE_CHECKING:
    from alliage.merging.recipe import MergeRecipe


def is_mergekit(content: Any) -> bool:
    """Whether a recipe's content has mergekit's form."""
    return isinstance(content, dict) and "merge_method" in content


def from_mergekit(content: dict[str, Any], where: str) -> MergeRecipe:  # noqa: ARG001
    """Refuse it, for now."""
    raise UsageError(Problem(where, "has mergekit's form, which is not read yet."))
