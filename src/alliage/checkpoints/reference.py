"""From what a user writes to files: folders, files, hub ids, URLs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alliage.checkpoints import remote
from alliage.checkpoints.remote import RemotePath
from alliage.checkpoints.spec import is_text
from alliage.errors import AlliageError, Problem, UsageError, brief, nearest

ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"
HEADS = "heads"  # of a merged model: the folder of its models' own task heads
# Of statistics in a model's folder: no weights, though they end like them.
STATISTICS = ("fisher.safetensors", "regmean.safetensors", "regmean_plus_plus.safetensors")
_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?$")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_HUB_PICKLES = ["pytorch_model*.bin", "adapter_model.bin"]  # where there is nothing better
# Read in this order of preference: never a pickle where safetensors lie beside it.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_LARGEST_JSON = 100_000_000  # bytes; the index of a model with a million tensors has fewer
_LONGEST_NAME = 255  # bytes of a file's name


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The weight files of a checkpoint.

    Attributes:
        folder: where configuration and tokenizer lie; None for a file by itself.
        files: the weight files, in the order of their names.
        index: tensor name -> file, where an index says so.
    """

    folder: Path | RemotePath | None
    files: tuple[Path | RemotePath, ...]
    index: Mapping[str, Path | RemotePath] | None = None


def locate(ref: str | Path | RemotePath) -> Path | RemotePath:
    """The folder or file that a reference means; hub ids are fetched through the hub's cache.

    Raises:
        UsageError: nothing of that name, here, on the hub or at the URL.
        AlliageError: the URL's server cannot be reached, or refuses.
    """
    if isinstance(ref, RemotePath) or (remote.is_url(ref) and isinstance(ref, str)):
        found = remote.locate(str(ref), is_file=has_weight_ending(str(ref)))
        return locate(found) if isinstance(found, Path) else found
    path = Path(ref)
    try:
        path = path.expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError):  # a name too long, or the home of nobody
        raise UsageError(Problem(brief(str(ref)), "cannot be a path here.")) from None
    text = str(ref)
    match = _HUB_ID.match(text)
    if isinstance(ref, Path) or match is None or text.startswith(".") or has_weight_ending(text):
        raise UsageError(Problem(text, "does not exist.", _neighbours(path)))
    return _from_hub(match["repo"], match["revision"], path)


def find_weights(path: Path | RemotePath) -> WeightFiles:
    """The weight files of a folder, or what a single file or index stands for.

    Raises:
        AlliageError: no weights there, or an index that names impossible files.
    """
    # Any name on a web server may be a file: there the ending decides.
    if has_weight_ending(path.name) if isinstance(path, RemotePath) else path.is_file():
        if path.name.endswith(".index.json"):
            return _from_index(path)
        if not has_weight_ending(path.name):
            raise UsageError(
                Problem(
                    str(path),
                    "is no weight file.",
                    "Expected a folder, *.safetensors, *.bin or *.index.json.",
                )
            )
        return WeightFiles(None, (path,))
    if not path.is_dir():
        raise UsageError(Problem(str(path), "is neither a folder nor a file of bytes."))
    is_adapter = (path / ADAPTER_CONFIG).is_file()
    for name in _ADAPTER_WEIGHTS if is_adapter else _WEIGHTS:
        if (path / name).is_file():
            return WeightFiles(path, (path / name,))
        index = path / f"{name}.index.json"
        if index.is_file():
            return _from_index(index)
    found_there = sorted(file for file in path.glob("*.safetensors") if file.is_file())
    others = [file for file in found_there if file.name not in STATISTICS]
    if len(others) == 1 and not is_adapter:
        return WeightFiles(path, (others[0],))
    what = "adapter weights" if is_adapter else "weights"
    found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
    raise AlliageError(
        Problem(
            str(path),
            f"no {what} in it: expected {' or '.join(_ADAPTER_WEIGHTS if is_adapter else _WEIGHTS)}"
            f" (or an index), found {found}.",
        )
    )


def has_weight_ending(name: str) -> bool:
    """Whether a name is that of weights or of their index."""
    return name.endswith((".safetensors", ".bin", ".index.json"))


def read_json(path: Path | RemotePath) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        AlliageError: it does not.
    """
    try:
        data = _start(path, _LARGEST_JSON + 1)
        if len(data) > _LARGEST_JSON:
            raise ValueError(f"it is larger than {_LARGEST_JSON} bytes")
        content = json.loads(data.decode())
        if not is_text(json.dumps(content, ensure_ascii=False)):
            raise ValueError("it holds half a character")
    except (ValueError, RecursionError, OSError) as error:
        raise AlliageError(Problem(str(path), f"is not readable JSON: {error}.")) from None
    if not isinstance(content, dict):
        raise AlliageError(
            Problem(str(path), f"expected a JSON object, found {type(content).__name__}.")
        )
    return content


def _start(path: Path | RemotePath, length: int) -> bytes:
    if isinstance(path, RemotePath):
        return path.read_bytes(length)
    with path.open("rb") as file:
        return file.read(length)


def _from_index(index: Path | RemotePath) -> WeightFiles:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise AlliageError(Problem(str(index), "has no weight_map of tensor names to files."))
    folder = index.parent
    problems = []
    for file in sorted({str(file) for file in weight_map.values()}):
        if Path(file).name != file or not file.endswith((".safetensors", ".bin")):
            problems.append(
                Problem(
                    str(index),
                    f"names {brief(file)}; expected a weight file in the same folder.",
                    "The index is wrong or hostile: do not use it.",
                )
            )
        elif len(file.encode(errors="replace")) > _LONGEST_NAME or not (folder / file).is_file():
            what = f"names {brief(file)}, which is no file there."
            problems.append(Problem(str(index), what, "Fetch the missing shard."))
    if problems:
        raise AlliageError(problems)
    mapping = {name: folder / str(file) for name, file in weight_map.items()}
    return WeightFiles(folder, tuple(sorted(set(mapping.values()))), mapping)


def _from_hub(repo: str, revision: str | None, path: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    fix = _neighbours(path)
    download: Callable[..., str] = snapshot_download
    try:
        path = Path(download(repo, revision=revision, allow_patterns=_HUB_FILES))
        if not any(path.glob("*.safetensors")):
            download(repo, revision=revision, allow_patterns=_HUB_PICKLES)
        return path
    except RepositoryNotFoundError:
        what = "is neither a local path nor a model on the hub that you may read."
    except RevisionNotFoundError:
        what = f"the hub's {repo} has no revision {revision!r}."
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, HFValidationError):
        what = "is no local path, and the hub's cache lacks it while the hub cannot be reached."
        fix = fix or "Check the name, or fetch it where there is a network: hf download " + repo
    raise UsageError(Problem(f"{repo}@{revision}" if revision else repo, what, fix))


def _neighbours(path: Path) -> str:
    """Names like the missing one in its folder; the nearest existing folder otherwise."""
    parent = path.parent
    if not parent.is_dir():
        return f"{parent} does not exist either."
    names = [item.name for item in parent.iterdir() if not item.name.startswith(".")]
    suggestion = nearest(path.name, names[:1000])
    return suggestion if suggestion.startswith("Did") else ""
