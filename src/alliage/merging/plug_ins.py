"""Methods of other packages: the entry points that bring them, and those that cannot."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, MutableMapping
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
        methods: that it registered, or that are of its module.
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
    found = tuple(_loaded(entry, registry) for entry in entry_points(group=ENTRY_POINTS))
    for plug_in in found:
        if plug_in.problem:
            what = f"{plug_in}: this plug-in of merge methods is left out: {plug_in.problem}"
            warnings.warn(what, PlugInWarning, stacklevel=2)
    return found


def _loaded(entry: EntryPoint, registry: MutableMapping[str, Registered]) -> PlugIn:
    before, problem = dict(registry), ""
    try:
        entry.load()
    except (Exception, SystemExit) as error:  # whatever the package does when it is imported
        registry.clear()
        registry.update(before)
        said = (str(error).strip().splitlines() or ["no message"])[0]
        problem = f"{type(error).__name__}: {said}"
    methods = _methods_of(entry, registry, before)
    if not problem and not methods:
        problem = "it registers no method: decorate a function with @method."
    package = entry.dist.name if entry.dist is not None else "unknown"
    version = entry.dist.version if entry.dist is not None else "unknown"
    return PlugIn(package, version, f"{entry.name} = {entry.value}", methods, problem)


def _methods_of(
    entry: EntryPoint, registry: Mapping[str, Registered], before: Mapping[str, Registered]
) -> tuple[str, ...]:
    """What loading it registered, and what another entry of its module had registered already."""
    return tuple(
        name
        for name, method in registry.items()
        if name not in before or getattr(method.function, "__module__", None) == entry.module
    )
