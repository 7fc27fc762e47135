"""Methods of other packages: the entry points that bring them, and those that cannot."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, TypeVar

from alliage.errors import PlugInWarning

ENTRY_POINTS = "alliage.merge_methods"


class _Registered(Protocol):
    @property
    def function(self) -> object: ...


Registered = TypeVar("Registered", bound=_Registered)


@dataclass(frozen=True, slots=True)
class PlugIn:
    """One entry point of another package.

    Attributes:
        package, version: of the distribution; "unknown" where it does not say.
        entry: "name = module:attribute".
        methods: that are of its module or the modules below it, what it names, and what loading it
            registered that is of no other entry's module.
        problem: why it cannot be loaded; empty where it can.
    """

    package: str
    version: str
    entry: str
    methods: tuple[str, ...]
    problem: str

    def __str__(self) -> str:
        return f"{self.package} {self.version} ({self.entry})"

    def is_named(self, name: str) -> bool:
        """Whether a method of this name is likely to be its own."""
        entry, _, value = self.entry.partition(" = ")
        return name in (entry, value.rpartition(":")[2])


def load_plug_ins(registry: MutableMapping[str, Registered]) -> tuple[PlugIn, ...]:
    """Load every entry point; one that fails leaves no method behind, and a warning says so."""
    entries, before = entry_points(group=ENTRY_POINTS), set(registry)
    modules = {_module(entry) for entry in entries}
    found = tuple(_loaded(entry, registry, modules) for entry in entries)
    sound = {name for plug_in in found if not plug_in.problem for name in plug_in.methods}
    for plug_in in found:
        if plug_in.problem:
            for name in set(plug_in.methods) - sound - before:
                registry.pop(name, None)
            what = f"{plug_in}: this plug-in of merge methods is left out: {plug_in.problem}"
            warnings.warn(what, PlugInWarning, stacklevel=2)
    return found


def _loaded(
    entry: EntryPoint, registry: MutableMapping[str, Registered], modules: Iterable[str]
) -> PlugIn:
    before, made, problem = dict(registry), None, ""
    try:
        if not EntryPoint.pattern.match(entry.value):
            raise ValueError(f"{entry.value!r} is no module:attribute")
        made = entry.load()
    except (Exception, SystemExit) as error:  # whatever the package does when it is imported
        for name in registry.keys() - before.keys():
            if not _imported(registry[name]):
                del registry[name]
        registry.update(before)
        said = (str(error).strip().splitlines() or ["no message"])[0]
        problem = f"{type(error).__name__}: {said}"
    methods = tuple(
        name
        for name, method in registry.items()
        if method.function is made
        or _is_within(method, _module(entry))
        or (name not in before and not any(_is_within(method, module) for module in modules))
    )
    if not problem and not methods:
        problem = "it registers no method: decorate a function with @method."
    package = entry.dist.name if entry.dist is not None else "unknown"
    version = entry.dist.version if entry.dist is not None else "unknown"
    return PlugIn(package, version, f"{entry.name} = {entry.value}", methods, problem)


def _module(entry: EntryPoint) -> str:
    return entry.value.partition(":")[0].partition("[")[0].strip()


def _home(method: Registered) -> str:
    return getattr(method.function, "__module__", None) or ""


def _is_within(method: Registered, module: str) -> bool:
    """Whether a method is of a module or of one below it."""
    return f"{_home(method)}.".startswith(f"{module}.")


def _imported(method: Registered) -> bool:
    """Whether a method's module and all above it stand: one whose import fails is taken away."""
    parts = _home(method).split(".")
    return all(".".join(parts[: end + 1]) in sys.modules for end in range(len(parts)))
