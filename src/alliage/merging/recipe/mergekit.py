"""mergekit's YAML as a recipe of this package, with mergekit's meaning.

Written against mergekit 0.1.5. mergekit skips keys and parameters that it does not know; here they
are refused by name, as is what this package cannot do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from alliage import recipes
from alliage.errors import Problem, UsageError, nearest
from alliage.merging.recipe import parameters
from alliage.merging.recipe.mergekit_methods import (
    METHODS,
    MergekitMethod,
    MergekitParameter,
    Settings,
    converted,
    over,
    plain_values,
    speaks_of_all,
)
from alliage.merging.recipe.schema import DTypeName, MergeRecipe
from alliage.merging.registry import describe

_KEYS = (
    "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype",
    "out_dtype", "tokenizer_source", "tokenizer", "chat_template",
)  # fmt: skip


def is_mergekit(content: Any) -> bool:
    """Whether a recipe's content has mergekit's form."""
    return isinstance(content, dict) and "merge_method" in content


def from_mergekit(content: Mapping[str, Any], where: str) -> MergeRecipe:
    """The recipe that a mergekit YAML stands for, in mergekit's dialect.

    Departures, told in the recipe's `notes`: the arithmetic is float32 whatever `dtype` says, and
    tokens of one number are merged, where mergekit may match them by their text.

    Args:
        content: of the YAML file.
        where: the file, for messages.

    Raises:
        UsageError: what mergekit would refuse or skip, or what this package cannot do; all of it.
    """
    reader = _Reader(where)
    made = reader.read(content)
    if reader.problems:
        raise UsageError(reader.problems)
    return recipes.parse(made, MergeRecipe, where).with_notes(reader.notes)


class _Reader:
    """Reads one file's content and keeps what is wrong with it and what is worth a note."""

    def __init__(self, where: str) -> None:
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._where = where
        self._name = ""
        self._method: MergekitMethod | None = None

    def read(self, content: Any) -> dict[str, Any]:
        """Our recipe's content; to be used only where there are no problems."""
        given = self._mapping(content, "", _KEYS)
        base = self._ref(given["base_model"], "base_model") if "base_model" in given else None
        self._find_method(given.get("merge_method"), base)
        shared = self._settings(given.get("parameters", {}), "parameters")
        forms = [key for key in ("models", "slices", "modules") if given.get(key)]
        if len(forms) != 1:
            found = " and ".join(forms) or "none of them"
            self._wrong("", f"expected one of models, slices and modules, found {found}.")
        path, body = "", given
        if "modules" in forms:
            path, body = "modules.default.", self._module(given["modules"])
            inner = self._settings(body.get("parameters", {}), f"{path}parameters")
            shared = over(inner, shared)
        made: dict[str, Any] = {"dialect": "mergekit", "base": base, "parameters": shared}
        if body.get("models"):
            made["models"] = self._models(body["models"], f"{path}models", base, shared)
        if body.get("slices"):
            made["slices"] = self._slices(body["slices"], f"{path}slices", base, shared)
        made["method"] = self._method.ours if self._method is not None else ""
        made["dtype"] = self._dtype(given)
        made["tokenizer"] = self._tokenizer(given, base)
        return made

    def _wrong(self, path: str, what: str, fix: str = "") -> None:
        problem = Problem(f"{self._where}: {path}" if path else self._where, what, fix)
        if problem not in self.problems:
            self.problems.append(problem)

    def _mapping(self, value: Any, path: str, keys: Sequence[str]) -> dict[str, Any]:
        """The known keys of a mapping that are given a value."""
        if not isinstance(value, dict):
            self._wrong(path, f"expected keys and values, found {recipes.shown(value)}.")
            return {}
        for key in value:
            if key not in keys:
                self._wrong(path, f"unknown key {recipes.shown(key)}.", _suggestion(key, keys))
        return {key: value[key] for key in keys if value.get(key) is not None}

    def _list(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            self._wrong(path, f"expected a list, found {recipes.shown(value)}.")
            return []
        return value

    def _find_method(self, name: Any, base: str | None) -> None:
        if isinstance(name, str) and name in METHODS:
            self._name, self._method = name, METHODS[name]
            if base is not None and self._method.with_base:
                self._method = replace(self._method, ours=self._method.with_base)
        else:
            what = f"mergekit has no method {recipes.shown(name)}."
            self._wrong("merge_method", what, nearest(str(name), METHODS))

    def _module(self, value: Any) -> dict[str, Any]:
        """The one module that there may be, with its models or slices."""
        modules = self._mapping(value, "modules", tuple(value) if isinstance(value, dict) else ())
        if modules and set(modules) != {"default"}:
            what = f"expected the one module default, found {', '.join(map(str, modules))}."
            fix = "Modules cannot be merged apart; write models: to merge all of them alike."
            self._wrong("modules", what, fix)
        keys = ("models", "slices", "parameters")
        body = self._mapping(modules.get("default", {}), "modules.default", keys)
        if body and bool(body.get("models")) == bool(body.get("slices")):
            self._wrong("modules.default", "expected either models or slices.")
        return body

    def _models(
        self, value: Any, path: str, base: str | None, shared: Settings
    ) -> list[dict[str, Any]]:
        entries = []
        for number, each in enumerate(self._list(value, path)):
            place = f"{path}[{number}]"
            entries.append(self._entry(self._mapping(each, place, ("model", "parameters")), place))
        if base is not None and all(entry["model"] != base for entry in entries):
            entries.append({"model": base, "parameters": {}})  # as mergekit does
        return self._arranged(entries, path, base, [shared])

    def _slices(
        self, value: Any, path: str, base: str | None, shared: Settings
    ) -> list[dict[str, Any]]:
        slices = []
        for number, each in enumerate(self._list(value, path)):
            place = f"{path}[{number}]"
            given = self._mapping(each, place, ("sources", "base_model", "parameters"))
            settings = self._settings(given.get("parameters", {}), f"{place}.parameters")
            own = base
            if "base_model" in given:
                own = self._ref(given["base_model"], f"{place}.base_model")
            entries = []
            for index, source in enumerate(self._list(given.get("sources"), f"{place}.sources")):
                inside = f"{place}.sources[{index}]"
                found = self._mapping(source, inside, ("model", "layer_range", "parameters"))
                layers = self._layers(found.get("layer_range"), f"{inside}.layer_range")
                entries.append({**self._entry(found, inside), "layers": layers})
            if len({entry["layers"][1] - entry["layers"][0] for entry in entries}) > 1:
                self._wrong(place, "its sources have different numbers of layers.")
            if self._method is not None and self._method.drops_base and own != base:
                self._wrong(f"{place}.base_model", "is another base than the recipe's.")
            arranged = self._arranged(entries, f"{place}.sources", own, [settings, shared])
            slices.append({"models": arranged, "parameters": settings})
        return slices

    def _entry(self, given: dict[str, Any], place: str) -> dict[str, Any]:
        settings = self._settings(given.get("parameters", {}), f"{place}.parameters", of_model=True)
        return {"model": self._ref(given.get("model"), f"{place}.model"), "parameters": settings}

    def _arranged(
        self, entries: list[dict[str, Any]], path: str, base: str | None, scopes: list[Settings]
    ) -> list[dict[str, Any]]:
        """The models of one merge in the order and number that our method takes them."""
        if self._method is None:
            return entries
        refs = [entry["model"] for entry in entries]
        for ref in sorted({ref for ref in refs if refs.count(ref) > 1}):
            self._wrong(path, f"{ref} is there twice.")
        if self._method.needs_base and base not in refs:
            what = f"{self._name} needs the base among them" if base else f"{self._name} needs one"
            self._wrong(path if base else "base_model", f"{what}.", f"Add {base}." if base else "")
        if len(refs) < self._method.least:
            what = f"{self._name} takes {self._method.least} or more, the base included"
            self._wrong(path, f"{what}, found {len(refs)}.")
        if self._method.drops_base and base is not None:
            kept = [entry for entry in entries if entry["model"] != base]
            if not kept:
                self._wrong(path, "only the base is there: nothing to merge.")
            if len({tuple(entry["layers"]) for entry in entries if "layers" in entry}) > 1:
                what = f"its sources give different layers, but {self._name} compares each with "
                self._wrong(path, what + "the base's layer of its place.")
            entries = kept
        elif self._method.needs_base:
            entries = sorted(entries, key=lambda entry: bool(entry["model"] != base))
        count = describe(self._method.ours).models
        if count is not None and len(entries) != count:
            base_too = "" if self._method.drops_base else ", the base included"
            self._wrong(path, f"{self._name} takes {count}{base_too}, found {len(entries)}.")
        for name, parameter in self._method.parameters.items():
            if not parameter.required:
                continue
            for entry in entries if parameter.per_model else entries[:1]:
                inner = [entry["parameters"]] if parameter.per_model else []
                if not any(speaks_of_all(scope.get(parameter.ours)) for scope in inner + scopes):
                    of = f" of {entry['model']}" if parameter.per_model else ""
                    what = f"{self._name} needs {name}{of} for every tensor."
                    self._wrong(path, what, f"Give {name}, or a rule without a filter.")
        return entries

    def _settings(self, value: Any, path: str, *, of_model: bool = False) -> Settings:
        """Parameters under our names, with our values."""
        made: Settings = {}
        if not isinstance(value, dict):
            self._wrong(path, f"expected keys and values, found {recipes.shown(value)}.")
            return made
        if self._method is None:
            return made
        for name, each in value.items():
            parameter = self._method.parameters.get(name)
            place = f"{path}.{name}"
            if parameter is None:
                known = self._method.parameters
                what = f"{self._name} has no parameter {recipes.shown(name)}."
                self._wrong(path, what, _suggestion(name, known))
            elif of_model and not parameter.per_model:
                what = f"{name} is one value for all models: mergekit skips it here."
                self._wrong(path, what, "Set it under the parameters of the slice or the recipe.")
            else:
                self._translate(each, place, parameter, made)
        return made

    def _translate(
        self, value: Any, path: str, parameter: MergekitParameter, made: Settings
    ) -> None:
        assert self._method is not None
        rules = [value] if isinstance(value, dict) else value
        try:
            ours = converted(rules, parameter)
        except ValueError:
            self._wrong(path, f"must be true or false, got {recipes.shown(value)}.")
            return
        if parameter.only is not None and any(
            each != parameter.only for each in plain_values(ours)
        ):
            what = f"only {str(parameter.only).lower()} is supported for {self._name}."
            self._wrong(path, what)
        if not parameter.ours:
            return
        declared = describe(self._method.ours).parameters[parameter.ours]
        for problem in parameters.problems(ours, declared, path):
            self._wrong(problem.where, problem.what, problem.fix)
        made[parameter.ours] = ours

    def _ref(self, value: Any, path: str) -> str:
        """A model as "model@revision+adapter@revision", from text or mergekit's keys for it."""
        if isinstance(value, dict):
            given = self._mapping(value, path, ("model", "lora"))
            parts = [self._path(given.get("model"), f"{path}.model")]
            if "lora" in given:
                parts.append(self._path(given["lora"], f"{path}.lora"))
            return "+".join(parts)
        return self._path(value, path)

    def _path(self, value: Any, path: str) -> str:
        if isinstance(value, dict):
            given = self._mapping(value, path, ("path", "revision"))
            parts = [self._path(given.get("path"), f"{path}.path")]
            if "revision" in given:
                parts.append(self._path(given["revision"], f"{path}.revision"))
            return "@".join(parts)
        if not isinstance(value, str) or not value:
            self._wrong(path, f"expected a model, found {recipes.shown(value)}.")
            return ""
        return value

    def _layers(self, value: Any, path: str) -> list[int]:
        whole = isinstance(value, list) and all(type(each) is int for each in value)
        if not whole or len(value) != 2 or not 0 <= value[0] < value[1]:
            what = f"expected [start, stop] with 0 <= start < stop, got {recipes.shown(value)}."
            self._wrong(path, what)
            return [0, 1]
        return list(value)

    def _dtype(self, given: Mapping[str, Any]) -> str | None:
        """The output's type. mergekit's `dtype` is that of its arithmetic as well."""
        known = get_args(DTypeName)
        inside = str(given.get("dtype", "")).removeprefix("torch.")
        outside = str(given.get("out_dtype", "")).removeprefix("torch.")
        for key, name in (("dtype", inside), ("out_dtype", outside)):
            if name and name not in known and not (key == "dtype" and outside):
                self._wrong(key, f"is {name}.", "Expected one of " + ", ".join(known) + ".")
        if inside != "float32":
            computed = inside or "the models' own type"
            self.notes.append(f"dtype: mergekit computes in {computed}, this merge in float32.")
        return outside or inside or None

    def _tokenizer(self, given: Mapping[str, Any], base: str | None) -> str:
        path, source = "tokenizer_source", given.get("tokenizer_source")
        if "tokenizer" in given:
            if source is not None:
                self._wrong("tokenizer", "goes not with tokenizer_source; give one of them.")
            path = "tokenizer.source"
            keys = ("source", "tokens", "pad_to_multiple_of")
            inner = self._mapping(given["tokenizer"], "tokenizer", keys)
            for key in keys[1:]:
                if inner.get(key):
                    self._wrong(f"tokenizer.{key}", "is not supported: tokens stay as they are.")
            source = inner.get("source", "union")
        template = given.get("chat_template")
        if template == "auto":
            self.notes.append(
                "chat_template auto: mergekit takes the models' most frequent one, this merge the "
                "one that comes with the tokenizer."
            )
        elif template is not None:
            fix = "Take it out, and set it in the output's tokenizer afterwards."
            self._wrong("chat_template", f"{recipes.shown(template)} is not supported.", fix)
        if source is None:
            return "base"
        if source == "union":
            fix = "Give the models one vocabulary first, then write base or one of the models."
            self._wrong(path, "union is not supported: no tokens are added.", fix)
            return "base"
        self.notes.append(
            "tokenizer: mergekit matches tokens by their text, this merge by their number."
        )
        ref = self._ref(source, path)
        return "base" if ref == base else ref


def _suggestion(name: Any, known: Iterable[str]) -> str:
    close = nearest(str(name), known)
    return close if close.startswith("Did") else "mergekit skips it: take it out."
