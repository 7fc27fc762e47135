"""What every YAML file of a user shares: reading it, and pydantic's findings as problems."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from alliage.errors import Problem, UsageError, nearest

_Model = TypeVar("_Model", bound=BaseModel)

# Beyond these it is no recipe: a few lines of aliases may stand for more than memory holds.
LARGEST_FILE = 2**20  # bytes
LARGEST_CONTENT = 100_000  # values, aliases written out
DEEPEST = 50  # lists and mappings inside each other

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlevel = 3


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UsageError: it cannot be read, is too large, or is no plain YAML.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            what = f"is larger than {LARGEST_FILE} bytes, which no recipe needs."
            raise UsageError(Problem(str(path), what))
        return parse_yaml(text.decode("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(Problem(str(path), f"cannot be read: {error}.")) from None


def parse_yaml(text: str, where: str) -> Any:
    """The content of YAML text: mappings, lists, text, numbers, true, false and null.

    Departs from YAML 1.1: 1e-5 is a number, dates are text, a key stands once in a mapping, and
    tags (!!...) are refused.

    Raises:
        UsageError: it is no such YAML, or stands for too much.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark is not None else where
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(Problem(place, f"is not valid YAML: {reason}.")) from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which bounds what a file may stand for before it builds anything."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) not in (None, "!"):
            raise _refusal(f"the tag {event.tag} is not allowed", event.start_mark)
        self._depth += 1
        if self._depth > DEEPEST:
            raise _refusal(f"more than {DEEPEST} levels inside each other", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node


# Floats as YAML 1.2 has them (1e-5), and no dates: names may look like them.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _measure(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The values that a node stands for with its aliases written out; refuses too many."""
    known = sizes.get(id(node))
    if known is not None:
        if known == 0:
            raise _refusal("an alias stands for what it is in", node.start_mark)
        return known
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        _refuse_twice_the_same_key(node)
        for key, value in node.value:
            size += _measure(key, sizes) + _measure(value, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_measure(item, sizes) for item in node.value)
    if size > LARGEST_CONTENT:
        raise _refusal(f"stands for more than {LARGEST_CONTENT} values", node.start_mark)
    sizes[id(node)] = size
    return size


def _refuse_twice_the_same_key(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refusal("a key must be text", key.start_mark)
        if (key.tag, key.value) in seen:
            raise _refusal(f"the key {key.value!r} is there twice", key.start_mark)
        seen.add((key.tag, key.value))


def _refusal(problem: str, mark: yaml.Mark | None) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def shown(value: Any) -> str:
    """A value of a user's file for a message, cut where it is long."""
    return _SHORT.repr(value)


def exists(folder: Path, ref: str) -> bool:
    """Whether a reference is a path that is there, from a folder; no for what cannot be a path."""
    try:
        return (folder / Path(ref).expanduser()).exists()
    except (OSError, RuntimeError):  # a name too long, or a user who is not there
        return False


def resolve(folder: Path, ref: str) -> str:
    """A reference in a recipe: a local path counts from the recipe's folder, hub ids stay."""
    return str(folder / Path(ref).expanduser()) if exists(folder, ref) else ref


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
    got = "" if finding["type"] == "missing" else f" Got {shown(finding['input'])}."
    what = finding["msg"].removeprefix("Value error, ")  # pydantic's, before our own words
    what += "" if what.endswith(("?", ".")) else "."
    return Problem(where, f"{place}: {what}{got}" if place else what)


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
