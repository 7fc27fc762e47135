"""Reading safetensors files by byte range.

The format (https://github.com/huggingface/safetensors#format): eight bytes of header length,
little-endian; a JSON header of that length; the tensors' bytes, without holes. The header comes
from anywhere, so nothing in it is believed before it is checked.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from alliage.checkpoints import dtypes
from alliage.checkpoints.remote import RemoteBytes, RemotePath
from alliage.checkpoints.spec import TensorSpec, is_text
from alliage.errors import AlliageError, Problem, brief

_LENGTH_BYTES = 8
_LARGEST_HEADER = 100_000_000  # the limit of the reference implementation
_MOST_PROBLEMS = 100  # a damaged header may have millions
_DAMAGED = "The file is damaged or incomplete: fetch or save it again."


class SafetensorsFile:
    """One open safetensors file. Reads are thread-safe: they share no file position."""

    def __init__(self, path: Path | RemotePath) -> None:
        """Open `path` and check its header.

        Raises:
            AlliageError: the file cannot be read or its header contradicts itself or the file;
                all problems of the header at once.
        """
        self.path = path
        self._source: _LocalBytes | RemoteBytes = (
            RemoteBytes(path) if isinstance(path, RemotePath) else _LocalBytes(path)
        )
        try:
            self.specs, self.metadata = _read_header(path, self._source)
        except OSError as error:
            self.close()
            raise AlliageError(Problem(str(path), f"cannot be read: {error.strerror}.")) from None
        except BaseException:
            self.close()
            raise

    def read_into(self, spec: TensorSpec, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with a tensor's bytes from element `start` on, as stored."""
        offset = spec.start + start * dtypes.itemsize(spec.dtype)
        filled, wanted = 0, len(buffer)
        while filled < wanted:
            count = self._source.read(offset + filled, buffer[filled:])
            if count == 0:
                raise AlliageError(
                    Problem(
                        f"{self.path}: {spec.name}",
                        f"ends after {filled} of {wanted} bytes: the file became shorter "
                        "while it was read.",
                    )
                )
            filled += count

    def check_unchanged(self) -> None:
        """Look whether the file is still the one that was opened.

        Raises:
            AlliageError: it is not.
        """
        self._source.check_unchanged()

    @property
    def version(self) -> Any:
        """What tells this version of the file from others, as plain values."""
        return self._source.version

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._source.close()


class _LocalBytes:
    """An open file on this machine."""

    _fd = -1

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise AlliageError(Problem(str(path), f"cannot be opened: {error.strerror}.")) from None
        self._path = path
        status = os.fstat(self._fd)
        self._opened = identity(status)
        self.version = version(status)
        self.size = status.st_size

    def check_unchanged(self) -> None:
        """Look whether the path still leads to these bytes.

        Raises:
            AlliageError: it does not.
        """
        refuse_changed(self._path, self._opened)

    def read(self, offset: int, buffer: memoryview) -> int:
        """Fill the front of `buffer` from `offset` on; how many bytes, 0 at the end."""
        return os.preadv(self._fd, [buffer], offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:  # plans and vectors are dropped, not closed
        self.close()


def version(status: os.stat_result) -> list[int]:
    """What tells a local file from what replaced it: the time of change no program sets back.

    It stands in journals and goes to other nodes. The numbers of device and inode do not: they are
    others after a reboot, and on another node.
    """
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def identity(status: os.stat_result) -> list[int]:
    """The same for as long as the file is open."""
    return [*version(status), status.st_dev, status.st_ino]


def refuse_changed(path: Path, opened: list[int]) -> None:
    """Look whether `path` still leads to the file whose `identity` was `opened`.

    Raises:
        AlliageError: it does not.
    """
    try:
        now = identity(path.stat())
    except OSError as error:
        what = f"disappeared while it was read: {error.strerror}."
        raise AlliageError(Problem(str(path), what)) from None
    if now != opened:
        what = "changed while it was read: what was read may be of two versions."
        raise AlliageError(Problem(str(path), what, "Run again when it is complete."))


def _read_header(
    path: Path | RemotePath, source: _LocalBytes | RemoteBytes
) -> tuple[dict[str, TensorSpec], dict[str, str]]:
    size = source.size
    length = int.from_bytes(_front(source, 0, min(_LENGTH_BYTES, size)), "little")
    if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _LARGEST_HEADER):
        what = f"is no safetensors file, or a truncated one: {size} bytes"
        if size >= _LENGTH_BYTES:
            what += f", header length {length}"
        raise AlliageError(Problem(str(path), what + ".", _DAMAGED))
    try:
        header = json.loads(
            _front(source, _LENGTH_BYTES, length).decode(),  # json itself would also take UTF-16
            object_pairs_hook=_no_twins,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise AlliageError(
            Problem(str(path), f"the header is not valid JSON: {error}.", _DAMAGED)
        ) from None
    if not isinstance(header, dict):
        raise AlliageError(Problem(str(path), "the header is not a JSON object.", _DAMAGED))

    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    problems: list[Problem] = []
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) and is_text(key + value) for key, value in metadata.items()
    ):
        what = "__metadata__ in the header is not an object of texts."
        problems.append(Problem(str(path), what, _DAMAGED))
    specs: dict[str, TensorSpec] = {}
    ranges: list[tuple[int, int, str]] = []
    data_start = _LENGTH_BYTES + length
    for name, entry in header.items():
        wrong = _entry_error(entry) if is_text(name) else "its name is no Unicode text."
        if wrong:
            problems.append(Problem(f"{path}: {name}", wrong, _DAMAGED))
            if len(problems) == _MOST_PROBLEMS:
                break
            continue
        begin, end = entry["data_offsets"]
        specs[name] = TensorSpec(
            name, tuple(entry["shape"]), entry["dtype"], path, data_start + begin
        )
        ranges.append((begin, end, name))

    problems += _range_errors(path, ranges, size - data_start, complete=not problems)
    if problems:
        raise AlliageError(problems[:_MOST_PROBLEMS])
    return specs, metadata


def _front(source: _LocalBytes | RemoteBytes, offset: int, length: int) -> bytes:
    """Bytes of the header; fewer where the file ends."""
    content, filled = memoryview(bytearray(length)), 0
    while filled < length and (count := source.read(offset + filled, content[filled:])):
        filled += count
    return bytes(content[:filled])


def _entry_error(entry: Any) -> str:
    """What is wrong with one tensor's header entry, or nothing."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        return "its header entry lacks dtype, shape or data_offsets."
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not dtypes.is_known(dtype):
        return f"has the unknown type {brief(dtype)}."
    if not isinstance(shape, list) or not all(_is_size(n) for n in shape) or _overflows(shape):
        return f"has an impossible shape {brief(shape)}."
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        return f"has impossible offsets {brief(offsets)}."
    expected = math.prod(shape) * dtypes.itemsize(dtype)
    found = offsets[1] - offsets[0]
    if found != expected:
        return f"{dtype}{brief(shape)} takes {expected} bytes, its offsets {offsets} span {found}."
    return ""


def _overflows(shape: list[int]) -> bool:
    """Whether torch cannot count such elements, or the steps between them if one size is 0."""
    product = 1
    for size in shape:
        product *= max(size, 1)
        if product >= 2**63:
            return True
    return False


def _range_errors(
    path: Path | RemotePath, ranges: list[tuple[int, int, str]], data_size: int, *, complete: bool
) -> list[Problem]:
    """Overlaps, holes and tensors beyond the end of the file.

    Where some entries were refused (`complete` is false), holes are theirs and are not reported.
    """
    problems, position = [], 0
    cut_off = [name for _, end, name in sorted(ranges) if end > data_size]
    if cut_off:
        needed = max(end for _, end, _ in ranges)
        what = f"holds {data_size} of {needed} bytes of data; {len(cut_off)} tensors are cut off, "
        problems.append(Problem(str(path), f"{what}the first {cut_off[0]}.", _DAMAGED))
    for begin, end, name in sorted(ranges):
        if begin < position:
            problems.append(
                Problem(f"{path}: {name}", "its bytes overlap another tensor's.", _DAMAGED)
            )
        elif begin > position and complete:
            problems.append(
                Problem(f"{path}: {name}", f"{begin - position} unclaimed bytes before it.")
            )
        position = max(position, end)
    if complete and not problems and position < data_size:
        problems.append(
            Problem(str(path), f"{data_size - position} bytes after the last tensor.", _DAMAGED)
        )
    return problems


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different; json itself would keep the last one."""
    content = dict(pairs)
    if len(content) < len(pairs):
        [(twin, count)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twin!r} appears {count} times")
    return content


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity, which json takes though JSON has no such numbers."""
    raise ValueError(f"{name} is no number of JSON")
