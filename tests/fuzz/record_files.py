"""Hostile alliage.json: what an output says of itself and of its inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import alliage
from alliage.checkpoints import provenance
from alliage.errors import CheckFailed
from alliage.vectors import open as open_vector
from tests.fuzz import hostile
from tests.fuzz.checkpoint_files import write_safetensors
from tests.fuzz.verdict import Violation, sort

_SHAPES = {"layers.0.weight": [2, 2], "classifier.weight": [2, 2]}
_SPECIAL: dict[str, tuple[Any, ...]] = {
    "file": ("../base/model.safetensors", "/etc/passwd", "/dev/zero", "..", "", "a" * 5000, 5),
    "bytes": ("9", None, -1, 10**400, [], True),
    "sha256": (None, 5, [], {}, "", "z" * 5000),
    "path": ("/dev/zero", "nowhere", "~nobody/x", "a" * 5000, "\0", 5, [], "/proc/self"),
    "task": ([], {}, 5, None), "labels": (5, {}, [None, {}], "yes", [[]]), "recipe": ([], 5, None),
    "inputs": ({}, 5, "x", [5], [[]]), "outputs": ({"a": 1}, 5, ["x"], None),
}  # fmt: skip


def make_record(rng: Random, folder: Path) -> None:
    """A base and an output of it, whose record is right or changed in up to three places."""
    for name in ("base", "model"):
        (folder / name).mkdir()
        write_safetensors(folder / name / "model.safetensors", _SHAPES, rng)
    recipe = {"method": "average", "models": [str(folder / "base")]}
    record: Any = {
        "command": "merge", "recipe": recipe, "task": "x", "labels": ["no", "yes"],
        "recipe_sha256": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
        "inputs": [{"role": "base", "ref": "base", "path": str(folder / "base"),
                    "files": [_entry(folder / "base" / "model.safetensors")]}],
        "outputs": [_entry(folder / "model" / "model.safetensors")],
    }  # fmt: skip
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        record = hostile.change(rng, record) if rng.random() < 0.4 else _special(rng, record)
    (folder / "model" / provenance.FILE).write_bytes(hostile.dump(rng, record))


def _entry(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"file": file.name, "bytes": len(content), "sha256": digest}


def _special(rng: Random, document: Any, depth: int = 9) -> Any:
    """The document with one key's value changed for one that is meant for it, at any depth."""
    if isinstance(document, list):
        return [_special(rng, each, depth - 1) for each in document] if depth else document
    if not isinstance(document, dict) or not document or not depth:
        return document
    key = rng.choice(list(document))
    value = document[key]
    changed = rng.choice(_SPECIAL[key]) if key in _SPECIAL and rng.random() < 0.6 else value
    return document | {key: _special(rng, changed, depth - 1)}


def check_record(folder: Path) -> str:
    """`alliage verify`, and a base's heads beside a model's with such a record."""
    with alliage.open(folder / "base") as base, alliage.open(folder / "model") as model:
        open_vector(model, base)
    try:
        count, problems = provenance.verify(folder / "model")
    except CheckFailed as error:
        return f"no record: {sort(error)}"
    if any(not problem.what for problem in problems):
        raise Violation("a difference without a message")
    return f"{min(count, 3)} files compared, " + ("sound" if not problems else "differences")
