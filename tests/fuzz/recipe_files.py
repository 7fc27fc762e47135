"""Hostile recipes: YAML that explodes, lies about its types, or asks for objects."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import yaml

from alliage.errors import AlliageError
from alliage.merging import load_recipe
from tests.fuzz import hostile
from tests.fuzz.verdict import Violation, sort

_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
_TEXTS = (
    _LAUGHS + "models: *j\nmethod: average\n",
    _LAUGHS + "method: *j\nmodels: [x]\n",
    _LAUGHS + "method: average\nmodels: [x]\nparameters: {weight: *j}\n",
    _LAUGHS + "method: average\nmodels: [x]\nparameters: *j\n",
    _LAUGHS.replace("[", "{k: [").replace("]", "]}") + "method: average\nmodels: [{model: *j}]\n",
    "&a [*a, *a]", "method: &m {x: *m}\nmodels: *m\n", "a: &a\n  <<: *a\n",
    "method: !!python/object/apply:os.system ['touch {canary}']\nmodels: [x]\n",
    "!!python/object/new:subprocess.Popen [['touch', '{canary}']]\n",
    "!!python/name:os.system", "!!python/module:os", "!!python/tuple [1]", "!<tag:x,2000:y> z",
    "method: !!timestamp x\nmodels: [x]\n", "method: !!bool maybe\nmodels: [x]\n",
    "method: !!int x\nmodels: [x]\n", "method: !!int ''\nmodels: [x]\n", "a: !!float ''\n",
    "method: 2001-99-99\nmodels: [x]\n", "a: !!binary '*'\n", "a: !!set {b, c}\n",
    "a: !!omap [1]\n",
    "method: ties\nmethod: average\nmodels: [x]\n", "models: [x]\nmethod: average\nmodels: [y]\n",
    "method: average\nmodels: [{model: x, model: y}]\n", "? [a]\n: b\n", "? {a: b}\n: c\n",
    "--- a\n--- b\n", "%YAML 9.9\n---\na: b\n", "%TAG ! x\n",
    "\ufeffmethod: average\nmodels: [x]\n",
    "method: average\nmodels: [x]\nparameters: {weight: .nan}\n", "- " * 5000 + "x", "[" * 5000,
    "{a: " * 3000, "method: |\n  x\nmodels: [x]\n", "a: 0x" + "f" * 5000, "a: " + "9" * 5000,
    "method: average\nmodels: [x]\nparameters: {weight: 0x" + "f" * 900 + "}\n",
    "a: 1" + ":59" * 900,
    "\x00", "\t", "", "null", "5", "method: average\nmodels: [\"\\0\"]\n", "a: \"\\ud800\"\n",
    "method: average\nmodels: [x, x, x]\nparameters: {normalise: [1]}\n", "x: *nowhere\n",
)  # fmt: skip
_RECIPE: dict[str, Any] = {
    "method": "ties", "base": "base", "dtype": "float16",
    "models": ["one", {"model": "two", "name": "second", "parameters": {"weight": 0.5}}],
    "parameters": {"density": 0.2, "weight": 1.0},
}  # fmt: skip


def make_recipe(rng: Random, folder: Path) -> None:
    """A text of the list above, or a recipe with some values changed, then damaged now and then."""
    if rng.random() < 0.4:
        canary = folder.parent / "canary"
        content = rng.choice(_TEXTS).replace("{canary}", str(canary)).encode("utf-8")
    else:
        document: Any = _RECIPE
        for _ in range(rng.choice((0, 1, 1, 2))):
            document = hostile.change(rng, document)
        try:
            content = yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")
        except RecursionError:
            content = b"[" * 9999
    if rng.random() < 0.2:
        content = hostile.damage(rng, content)
    (folder / "recipe.yml").write_bytes(content)


def check_recipe(folder: Path) -> str:
    """An accepted recipe says what PyYAML reads; settings and plan give problems, no surprises."""
    from alliage.merging import plan

    path = folder / "recipe.yml"
    recipe = load_recipe(path)
    content = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # every scalar is text
    if recipe.method != content["method"] or len(recipe.models) != len(content["models"]):
        raise Violation(f"read {recipe}, PyYAML {content}")
    try:
        made = plan(recipe)
    except AlliageError as error:
        return f"accepted, then {sort(error)}"
    return f"accepted, then {sort(made.errors[0])}"
