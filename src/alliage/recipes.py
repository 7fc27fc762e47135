"""What every YAML file of a user shares: reading it, and pydantic's findings as problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from alliage.errors import Problem, UsageError, nearest

_Model = TypeVar("_Model", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UsageError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(Problem(str(path), f"cannot be read: {error}.")) from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(Problem(where, f"is not valid YAML: {reason}.")) from None


def resolve(folder: Path, ref: str) -> str:
    """A reference in a recipe: a local path counts from the recipe's folder, hub ids stay."""
    local = folder / ref
    return str(local) if local.exists() else ref


def parse(content: Any, model: type[_Model], where: str) -> _Model:
    """Check a recipe's content against its model.

    Raises:
        UsageError: unknown keys (with the nearest), missing keys, wrong values; all at once.
    """
    if not isinstance(content, dict):
        raise UsageError(
            Problem(where, f"expected keys and values, found {type(content).__name__}.")
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UsageError([_problem(finding, model, where) for finding in error.errors()]) from None


def _problem(finding: Any, model: type[BaseModel], where: str) -> Problem:
    place = ".".join(map(str, finding["loc"]))
    if finding["type"] == "extra_forbidden":
        *outer, key = finding["loc"]
        return Problem(where, f"unknown key {place}.", nearest(str(key), _keys(model, outer)))
    got = "" if finding["type"] == "missing" else f" Got {finding['input']!r}."
    return Problem(where, f"{place}: {finding['msg']}.{got}" if place else f"{finding['msg']}.")


def _keys(model: type[BaseModel], location: list[Any]) -> list[str]:
    """The keys allowed at a place inside a model: those of the model nested there."""
    for part in location:
        if part in model.model_fields:
            model = _nested(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _nested(arg))), None)
