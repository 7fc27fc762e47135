"""Where an output comes from, written beside it, and checking it again later."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import alliage
from alliage.checkpoints.checkpoint import Checkpoint
from alliage.checkpoints.reference import ADAPTER_CONFIG, CONFIG, read_json
from alliage.errors import CheckFailed, Problem, UsageError

FILE = "alliage.json"
_VERSIONS = ("torch", "numpy", "transformers", "peft")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_input(role: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """An input's reference and the SHA-256 of each of its weight and configuration files."""
    files = list(checkpoint.weight_files)
    if checkpoint.folder is not None:
        files += [
            checkpoint.folder / name
            for name in (CONFIG, ADAPTER_CONFIG)
            if (checkpoint.folder / name).is_file()
        ]
    return {
        "role": role,
        "ref": checkpoint.ref,
        "path": str(checkpoint.path.resolve()),
        "files": _digests(files, files[0].parent),
    }


def describe(
    command: str,
    recipe: Mapping[str, Any],
    inputs: Iterable[Mapping[str, Any]],
    folder: Path,
    **more: Any,
) -> dict[str, Any]:
    """The content of alliage.json: what was run, on which bytes, by which versions.

    Args:
        command: the command that made the output.
        recipe: its settings, as plain values.
        inputs: what `describe_input` returned of each.
        folder: the output's folder; every file in it by now is vouched for, but for the card.
        more: further facts about the output, such as its task.

    No time of day is in it, so the same run on the same inputs writes the same file.
    """
    versions = {"python": platform.python_version(), "alliage": alliage.__version__}
    for package in _VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": command,
        "recipe": dict(recipe),
        "recipe_sha256": _digest_of(recipe),
        "inputs": list(inputs),
        "outputs": _digests(_made(folder), folder),
        "versions": versions,
        **more,
    }


def read(folder: Path) -> dict[str, Any] | None:
    """alliage.json of a folder, or nothing."""
    path = folder / FILE
    return read_json(path) if path.is_file() else None


def verify(folder: Path) -> tuple[int, list[Problem]]:
    """Compare an output and its inputs with what alliage.json says of them.

    Returns:
        how many files were compared, and every difference.

    Raises:
        UsageError: the folder holds no alliage.json.
        CheckFailed: alliage.json itself is not what Alliage writes.
    """
    record = read(folder)
    if record is None:
        raise UsageError(
            Problem(str(folder), f"no {FILE} in it.", "Only what Alliage wrote can be verified.")
        )
    try:
        wanted = [(folder / entry["file"], entry, "the output") for entry in record["outputs"]]
        for source in record["inputs"]:
            home = Path(source["path"])
            home = home if home.is_dir() else home.parent
            role = f"input {source['role']}"
            wanted += [(home / entry["file"], entry, role) for entry in source["files"]]
        recipe = record["recipe"]
    except (KeyError, TypeError) as error:
        raise CheckFailed(
            Problem(str(folder / FILE), f"is no record that Alliage wrote: {error!r}.")
        ) from None
    problems = []
    if _digest_of(recipe) != record.get("recipe_sha256"):
        problems.append(
            Problem(str(folder / FILE), "the recipe was edited: its SHA-256 does not match.")
        )
    with ThreadPoolExecutor() as pool:
        problems += [found for found in pool.map(lambda item: _compare(*item), wanted) if found]
    return len(wanted), problems


def _made(folder: Path) -> list[Path]:
    """The files of an output but for the card, which is written last: it quotes the digests."""
    return [f for f in folder.rglob("*") if f.is_file() and f != folder / "README.md"]


def _compare(path: Path, entry: Mapping[str, Any], role: str) -> Problem | None:
    if not path.is_file():
        return Problem(str(path), f"{role} is gone; recorded {entry['bytes']} bytes.")
    size = path.stat().st_size
    if size != entry["bytes"]:
        return Problem(str(path), f"{role} changed: recorded {entry['bytes']} bytes, found {size}.")
    digest = sha256(path)
    if digest != entry["sha256"]:
        return Problem(
            str(path),
            f"{role} changed: recorded SHA-256 {entry['sha256'][:16]}…, found {digest[:16]}….",
        )
    return None


def _digests(files: Iterable[Path], folder: Path) -> list[dict[str, Any]]:
    paths = sorted(files)
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(sha256, paths))
    return [
        {"file": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, digests, strict=True)
    ]


def _digest_of(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
