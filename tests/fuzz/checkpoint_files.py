"""Hostile weight files: safetensors headers, indexes, and things that are no files."""

from __future__ import annotations

import io
import json
import math
import os
import struct
from contextlib import redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import safetensors
import torch

import alliage
from alliage.checkpoints import Checkpoint
from alliage.errors import AlliageError
from tests.fuzz import hostile
from tests.fuzz.verdict import Violation, general, sort

_SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1, "BOOL": 1}
_RARE = ("F31", "f32", "F8_E8M0", "F4", "F6_E2M3", "C64", "F8_E4M3FNUZ", "", "F32\0")

# Where one side refuses and the other does not, and why that is right.
_OURS_ALONE = (
    "has the unknown type",  # types that no merge can compute with, or torch lacks
    "the key … appears N times",  # the reference keeps the last one: which weights were meant?
    "its header entry lacks",  # the reference also takes an entry written as a list
    "has an impossible shape",  # sizes that torch cannot hold, though the tensor is empty
)
_THEIRS_ALONE = (
    "recursion limit exceeded",  # only in fields that nobody reads; so are the next ones
    "number out of range",
    "surrogate",
    "unexpected end of hex escape",
    "invalid type: floating point `-0.0`",  # -0 for 0
)


def header(rng: Random) -> tuple[dict[str, Any], bytes]:
    """A valid header with the data it describes."""
    entries: dict[str, Any] = {}
    if rng.random() < 0.3:
        entries["__metadata__"] = {"format": "pt"}
    position = 0
    for number in range(rng.randrange(4)):
        name = hostile.text(rng) if rng.random() < 0.2 else f"layers.{number}.weight"
        dtype = rng.choice(tuple(_SIZES))
        shape = [rng.choice((0, 1, 2, 3)) for _ in range(rng.randrange(4))]
        size = math.prod(shape) * _SIZES[dtype]
        if name in entries or name == "__metadata__":
            continue
        offsets = [position, position + size]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position += size
    return entries, rng.randbytes(position)


def make_safetensors(rng: Random, folder: Path) -> None:
    """One file: valid, or with one to three lies in its header, its length or its data."""
    entries, data = header(rng)
    document: Any = entries
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        document = _lie(rng, document)
    text = hostile.dump(rng, document) + b" " * rng.choice((0, 0, 7))
    length = len(text)
    if rng.random() < 0.05 and document is entries and entries:  # a name twice, all else in order
        twin = json.dumps(dict([rng.choice(tuple(entries.items()))])).encode()
        text = json.dumps(entries).encode()[:-1] + b"," + twin[1:]
        length = len(text)
    if rng.random() < 0.08:
        length = rng.choice((0, 1, length - 1, length + 1, length + len(data), 2**63, 2**64 - 1))
    if rng.random() < 0.08:
        data = rng.choice((data[:-1], data + b"\0", b"", data * 2))
    content = struct.pack("<Q", max(length, 0)) + text + data
    if rng.random() < 0.05:
        content = hostile.damage(rng, content)
    (folder / "x.safetensors").write_bytes(content)


def _lie(rng: Random, document: Any) -> Any:
    entries = [v for v in document.values() if isinstance(v, dict)] if _is_object(document) else []
    complete = [e for e in entries if isinstance(e.get("data_offsets"), list)]
    if not complete or rng.random() < 0.4:
        return hostile.change(rng, document)
    entry = rng.choice(complete)
    kind = rng.randrange(6)
    if kind == 0:
        entry["dtype"] = rng.choice(_RARE + tuple(_SIZES))
    elif kind == 1 and isinstance(entry.get("shape"), list):
        entry["shape"] = [*entry["shape"], rng.choice(hostile.NUMBERS)]
    elif kind == 2:
        entry["shape"] = rng.choice(
            (
                [2**62, 2**62, 0],
                [0, 2**62, 2**62],
                [0, 2**63],
                [2**32, 2**32],
                [1] * 500,
                [2**62] * 9,
            )
        )
    elif kind == 3:
        shift = rng.choice((-1, 1, 4, 2**40, 2**63))
        entry["data_offsets"] = [
            n + shift if isinstance(n, int) else n for n in entry["data_offsets"]
        ]
    elif kind == 4:
        entry["data_offsets"] = list(rng.choice(complete)["data_offsets"])
    else:
        entry["data_offsets"] = [rng.choice(hostile.NUMBERS) for _ in range(rng.randrange(4))]
    return document


def _is_object(document: Any) -> bool:
    return isinstance(document, dict)


def reference(content: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> type, shape and bytes, as the reference implementation reads a file."""
    return {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in safetensors.deserialize(content)
    }


def read_all(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> type, shape and bytes, as Alliage reads a checkpoint."""
    found = {}
    for name, spec in checkpoint.specs().items():
        tensor = checkpoint.read(name)
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        found[name] = (spec.dtype, spec.shape, raw)
    return found


def look_at(path: Path | str) -> None:
    """`alliage inspect` in both forms, on an output that takes UTF-8 only."""
    from alliage.cli.inspect import inspect

    for json_wanted in (False, True):
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with redirect_stdout(output):
            inspect([str(path)], json=json_wanted)
        output.flush()


def check_safetensors(folder: Path) -> str:
    """Whatever both accept is equal; whatever one side refuses alone is known and meant."""
    path = folder / "x.safetensors"
    try:
        expected, refusal = reference(path.read_bytes()), ""
    except safetensors.SafetensorError as error:
        expected, refusal = {}, str(error).removeprefix("Error while deserializing: ")
    try:
        with alliage.open(path) as checkpoint:
            found = read_all(checkpoint)
    except AlliageError as error:
        if refusal:
            return "both refuse"
        reasons = {general(problem.what) for problem in error.problems}
        spoken = " ".join(problem.what for problem in error.problems)
        for reason in _OURS_ALONE:
            if any(r.startswith(reason) for r in reasons) or _matches(reason, spoken):
                return f"only Alliage refuses: {reason}"
        raise Violation(f"only Alliage refuses: {error}") from None
    look_at(path)
    if refusal:
        known = [reason for reason in _THEIRS_ALONE if reason in refusal]
        if not known:
            raise Violation(f"only the reference refuses: {refusal}")
        return f"only the reference refuses: {known[0]}"
    if found != expected:
        raise Violation(f"read {found}, the reference {expected}"[:2000])
    return "both accept, equal"


def _matches(reason: str, spoken: str) -> bool:
    return reason.startswith("the key") and "the key " in spoken and " appears " in spoken


_SHARD_NAMES = (
    "model-00001-of-00002.safetensors", "../outside.safetensors", "sub/inside.safetensors",
    "/etc/hostname", "fifo.safetensors", "folder.safetensors", "link.safetensors",
    "loop.safetensors", "dangling.safetensors", "model.safetensors.index.json", "a.txt",
    "x" * 300 + ".safetensors", "nul\0.safetensors", "\ud800.safetensors", "garbage.bin",
)  # fmt: skip


def make_index(rng: Random, folder: Path) -> None:
    """Two shards and an index that is right, or changed in up to three places."""
    home = folder / "model"
    (home / "sub").mkdir(parents=True)
    for number, place in enumerate(
        (home / _SHARD_NAMES[0], home / "b.safetensors", home / "sub" / "inside.safetensors",
         folder / "outside.safetensors")
    ):  # fmt: skip
        write_safetensors(place, {f"t{number}": [2, 3], f"u{number}": []}, rng)
    os.mkfifo(home / "fifo.safetensors")
    (home / "folder.safetensors").mkdir()
    (home / "garbage.bin").write_bytes(rng.randbytes(50))
    (home / "link.safetensors").symlink_to("../outside.safetensors")
    (home / "loop.safetensors").symlink_to("loop.safetensors")
    (home / "dangling.safetensors").symlink_to("nowhere")
    weight_map: dict[str, Any] = {
        "t0": _SHARD_NAMES[0], "u0": _SHARD_NAMES[0], "t1": "b.safetensors", "u1": "b.safetensors",
    }  # fmt: skip
    index: Any = {"metadata": {"total_size": 56}, "weight_map": weight_map}
    if rng.random() < 0.2:
        weight_map |= {"t3": "link.safetensors", "u3": "link.safetensors"}
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        if rng.random() < 0.6:
            weight_map[rng.choice(tuple(weight_map))] = rng.choice(_SHARD_NAMES)
        else:
            index = hostile.change(rng, index)
    (home / "model.safetensors.index.json").write_bytes(hostile.dump(rng, index))


def write_safetensors(path: Path, shapes: dict[str, list[int]], rng: Random) -> None:
    """A valid float32 file of small whole numbers."""
    entries, position = {}, 0
    for name, shape in shapes.items():
        stop = position + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    data = struct.pack(f"<{position // 4}f", *(rng.randrange(-9, 9) for _ in range(position // 4)))
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def check_index(folder: Path) -> str:
    """What is accepted are whole files of the index's own folder, read as the reference does."""
    home = folder / "model"
    with alliage.open(home) as checkpoint:
        expected: dict[str, Any] = {}
        for file in checkpoint.weight_files:
            if file.parent != home:
                raise Violation(f"led to {file}")
            expected |= reference(file.read_bytes())
        if read_all(checkpoint) != expected:
            raise Violation("the shards hold something else")
    look_at(home)
    return "accepted, equal"


def make_odd(rng: Random, folder: Path) -> None:
    """No regular file where weights should be; the references to try stand in a list."""
    home = folder / "model"
    home.mkdir()
    names = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "config.json",
             "adapter_config.json", "model.safetensors.index.json", "x.safetensors")  # fmt: skip
    for name in rng.sample(names, rng.choice((1, 2, 3))):
        place = home / name
        kind = rng.randrange(9)
        if kind == 0:
            os.mkfifo(place)
        elif kind == 1:
            place.mkdir()
        elif kind == 2:
            place.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem")))
        elif kind == 3:
            place.symlink_to(rng.choice((name, "nowhere", "..", ".", "/", "/proc/self/fd")))
        elif kind == 4:
            place.write_bytes(b"")
        elif kind == 5:
            with place.open("wb") as file:  # a hole: no disk, but a terabyte to read
                file.truncate(2**40)
        elif kind == 6:
            place.write_bytes(rng.randbytes(rng.randrange(99)))
        elif kind == 7:
            place.write_bytes(hostile.dump(rng, hostile.value(rng)))
        else:
            write_safetensors(place, {"layers.0.weight": [2, 2]}, rng)
    refs = [str(home), *(str(home / name) for name in names), hostile.text(rng)]
    refs += [f"{home}/{hostile.text(rng)}", "~nobody-such/x", "/dev/zero", "/dev/tty"]
    listed = json.dumps(rng.sample(refs, 4) + refs[:1])
    (folder / "references.json").write_text(listed, encoding="utf-8")


def check_odd(folder: Path) -> str:
    """Every reference gives a checkpoint or an error."""
    outcomes = []
    for ref in json.loads((folder / "references.json").read_text(encoding="utf-8")):
        try:
            with alliage.open(ref) as checkpoint:
                read_all(checkpoint)
            look_at(ref)
            outcomes.append("accepted")
        except AlliageError as error:
            outcomes.append(sort(error))
    return outcomes[-1]
