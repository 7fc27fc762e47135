"""Where an output comes from, written beside it, and checking it again later."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import alliage
from alliage.checkpoints.checkpoint import Checkpoint
from alliage.checkpoints.digests import recomputed, sha256
from alliage.checkpoints.reference import (
    ADAPTER_CONFIG,
    CONFIG,
    STATISTICS,
    has_weight_ending,
    read_json,
)
from alliage.checkpoints.remote import RemotePath, is_url
from alliage.errors import CheckFailed, Problem, UsageError

FILE = "alliage.json"
_VERSIONS = ("torch", "numpy", "transformers", "peft")


def describe_input(role: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """An input's reference and the SHA-256 of each of its weight and configuration files.

    Raises:
        AlliageError: a file on a URL changed since it was opened.
    """
    files = {file.name: file for file in checkpoint.weight_files}
    if checkpoint.home is not None:
        settings = [checkpoint.home / name for name in (CONFIG, ADAPTER_CONFIG)]
        files |= {file.name: file for file in settings if file.is_file()}
    path = checkpoint.path
    digests = _digests(files)
    checkpoint.check_unchanged()
    return {
        "role": role,
        "ref": checkpoint.ref,
        "path": str(path if isinstance(path, RemotePath) else path.resolve()),
        "files": digests,
    }


def hash_weights(checkpoint: Checkpoint) -> list[str]:
    """The SHA-256 of each of a checkpoint's weight files.

    Raises:
        AlliageError: a file on a URL changed since it was opened.
    """
    entries = _digests({file.name: file for file in checkpoint.weight_files})
    checkpoint.check_unchanged()
    return [entry["sha256"] for entry in entries]


def describe(
    command: str,
    recipe: Mapping[str, Any],
    inputs: Iterable[Mapping[str, Any]],
    folder: Path,
    *,
    packages: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> dict[str, Any]:
    """The content of alliage.json: what was run, on which bytes, by which versions.

    Args:
        command: the command that made the output.
        recipe: its settings, as plain values.
        inputs: what `describe_input` returned of each.
        folder: the output's folder; every file in it is vouched for, but for this one and the card
            (an interrupted run may have left both).
        packages: name -> version, of others that had a part in it.
        more: further facts about the output, such as its task.

    No time of day is in it, so the same run on the same inputs writes the same file.
    """
    versions = {"python": platform.python_version(), "alliage": alliage.__version__}
    for package in _VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    versions |= packages
    return {
        "command": command,
        "recipe": dict(recipe),
        "recipe_sha256": _digest_of(recipe),
        "inputs": list(inputs),
        "outputs": _digests({str(file.relative_to(folder)): file for file in _made(folder)}),
        "versions": versions,
        **more,
    }


def read(folder: Path | RemotePath) -> dict[str, Any] | None:
    """alliage.json of a folder, or nothing."""
    path = folder / FILE
    return read_json(path) if path.is_file() else None


def made_with(out: str | Path) -> dict[str, str]:
    """Package -> version, of what wrote an output; nothing where its record does not tell."""
    record = read(_path(str(out))) or {}
    versions = record.get("versions")
    if not isinstance(versions, dict):
        return {}
    found = {name: str(number) for name, number in versions.items()}
    return {name: number for name, number in found.items() if (name + number).isprintable()}


def verify(out: str | Path) -> tuple[int, list[Problem]]:
    """Compare an output and its inputs with what alliage.json says of them.

    Args:
        out: a folder that Alliage wrote, or its URL.

    Returns:
        how many files were compared, and every difference: weights in the folder that
        alliage.json does not name are one.

    Raises:
        UsageError: the folder holds no alliage.json.
        CheckFailed: alliage.json itself is not what Alliage writes, or names no output.
        AlliageError: a URL cannot be reached.
    """
    folder = _path(str(out))
    record = read(folder)
    if record is None:
        raise UsageError(
            Problem(str(folder), f"no {FILE} in it.", "Only what Alliage wrote can be verified.")
        )
    try:
        wanted = [(folder / entry["file"], entry, "the output") for entry in record["outputs"]]
        for source in record["inputs"]:
            home = _path(source["path"])
            if has_weight_ending(home.name) if isinstance(home, RemotePath) else not home.is_dir():
                home = home.parent
            role = f"input {source['role']}"
            wanted += [(home / entry["file"], entry, role) for entry in source["files"]]
        recipe = record["recipe"]
        for _, entry, role in wanted:
            if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
                raise TypeError(f"bytes and sha256 of {role}")
    except (KeyError, TypeError, OSError) as error:
        raise CheckFailed(
            Problem(str(folder / FILE), f"is no record that Alliage wrote: {error!r}.")
        ) from None
    if not record["outputs"]:
        raise CheckFailed(
            Problem(str(folder / FILE), "names no output: there is nothing to check.")
        )
    there: list[Path | RemotePath] = [*folder.iterdir()]
    known = {path for path, _, role in wanted if role == "the output"}
    problems = [
        Problem(str(file), "weights that the record does not know.", "Remove it.")
        for file in sorted(there, key=str)
        if has_weight_ending(file.name)
        and file not in known
        and file.is_file()
        and file.name not in STATISTICS
    ]
    if _digest_of(recipe) != record.get("recipe_sha256"):
        problems.append(
            Problem(str(folder / FILE), "the recipe was edited: its SHA-256 does not match.")
        )
    with ThreadPoolExecutor() as pool:
        problems += [found for found in pool.map(lambda item: _compare(*item), wanted) if found]
    return len(wanted), problems


def _path(text: str) -> Path | RemotePath:
    return RemotePath.parse(text) if is_url(text) else Path(text)


def _made(folder: Path) -> list[Path]:
    """The files of an output but for the record and the card, which quotes its digests."""
    later = (folder / FILE, folder / "README.md")
    return [f for f in folder.rglob("*") if f.is_file() and f not in later]


def _compare(path: Path | RemotePath, entry: Mapping[str, Any], role: str) -> Problem | None:
    try:
        there = path.is_file()
    except OSError:  # too long for a path
        there = False
    if not there:
        return Problem(str(path), f"{role} is gone; recorded {entry['bytes']} bytes.")
    size = _size(path)
    if size != entry["bytes"]:
        return Problem(str(path), f"{role} changed: recorded {entry['bytes']} bytes, found {size}.")
    digest = recomputed(path)
    if digest != entry["sha256"]:
        return Problem(
            str(path),
            f"{role} changed: recorded SHA-256 {entry['sha256'][:16]}…, found {digest[:16]}….",
        )
    return None


def _size(path: Path | RemotePath) -> int:
    return int(path.info()["size"]) if isinstance(path, RemotePath) else path.stat().st_size


def _digests(files: Mapping[str, Path | RemotePath]) -> list[dict[str, Any]]:
    """The entries of alliage.json for files by their names in the folder."""
    paths = dict(sorted(files.items()))
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(sha256, paths.values()))
    return [
        {"file": name, "bytes": _size(path), "sha256": digest}
        for (name, path), digest in zip(paths.items(), digests, strict=True)
    ]


def _digest_of(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
