"""Writing a checkpoint: laid out beforehand, filled in any order, visible only when whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from alliage.checkpoints import dtypes
from alliage.checkpoints.checkpoint import Checkpoint
from alliage.checkpoints.spec import TensorSpec
from alliage.errors import Problem, TransientError, UsageError

MAX_SHARD_BYTES = 5 * 10**9
NEVER_SHARD = sys.maxsize  # bytes, for what must be one file
_COPY_BYTES = 4 * 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each tensor of an output goes.

    Attributes:
        shards: file name -> the specs of its tensors, offsets as in the finished file.
        headers: file name -> the bytes before the data.
    """

    shards: dict[str, list[TensorSpec]]
    headers: dict[str, bytes]

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(spec.nbytes for specs in self.shards.values() for spec in specs) + sum(
            map(len, self.headers.values())
        )

    def fills(self, folder: Path) -> bool:
        """Whether all files lie in a folder at their full size."""
        sizes = {
            file: len(self.headers[file]) + sum(spec.nbytes for spec in specs)
            for file, specs in self.shards.items()
        }
        return all(
            (folder / file).is_file() and (folder / file).stat().st_size == size
            for file, size in sizes.items()
        )


def plan_layout(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    *,
    stem: str = "model",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> Layout:
    """Distribute (name, dtype code, shape) over shards, in order of the names.

    A shard holds at most `max_shard_bytes` of tensors, or one tensor that is larger.
    """
    groups: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, dtype, shape in sorted(tensors):
        size = TensorSpec(name, shape, dtype, Path(), 0).nbytes
        if groups[-1] and filled + size > max_shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append((name, dtype, shape))
        filled += size
    shards: dict[str, list[TensorSpec]] = {}
    headers: dict[str, bytes] = {}
    for number, group in enumerate(groups, start=1):
        part = f"-{number:05d}-of-{len(groups):05d}" if len(groups) > 1 else ""
        file = f"{stem}{part}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
        offset = 0
        for name, dtype, shape in group:
            size = TensorSpec(name, shape, dtype, Path(), 0).nbytes
            header[name] = {
                "dtype": dtype,
                "shape": list(shape),
                "data_offsets": [offset, offset + size],
            }
            offset += size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # tensors start aligned
        headers[file] = len(text).to_bytes(8, "little") + text
        start = len(headers[file])
        shards[file] = [
            TensorSpec(name, shape, dtype, Path(file), start + header[name]["data_offsets"][0])
            for name, dtype, shape in group
        ]
    return Layout(shards, headers)


def refuse_existing(out: Path) -> None:
    """Refuse an output path that exists, or whose parent cannot hold it.

    Raises:
        UsageError: with what to do.
    """
    if os.path.lexists(out):  # a dangling link too
        raise UsageError(
            Problem(str(out), "exists already.", "Choose another output or remove it first.")
        )
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(Problem(str(out), f"{parent} cannot be written to."))


class OutputFolder:
    """A folder that appears under its name when complete, and never otherwise.

    Files are made in a hidden folder beside it; leaving the `with` block without an error renames
    it, an error removes it.
    """

    def __init__(self, out: str | Path) -> None:
        """Prepare to make `out`; nothing is written before the `with` block.

        Raises:
            UsageError: `out` exists, or its parent cannot be written to.
        """
        self.out = Path(out)
        refuse_existing(self.out)
        self.staging = Path()

    def __enter__(self) -> Self:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.staging = Path(
            tempfile.mkdtemp(prefix=f".{self.out.name}.partial-", dir=self.out.parent)
        )
        self.staging.chmod(0o755)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, *_: object) -> None:
        if error is None:
            try:
                sync_tree(self.staging)
                refuse_existing(self.out)  # it may have appeared meanwhile
                self.staging.rename(self.out)
                sync_folder(self.out.parent)
            except BaseException as failure:
                self._remove(failure)
                raise
        else:
            self._remove(error)

    def _remove(self, error: BaseException) -> None:
        """Remove the staging folder.

        Raises:
            TransientError: instead of an `error` by which the system says that the disk is full.
        """
        shutil.rmtree(self.staging, ignore_errors=True)
        if is_disk_full(error):
            assert isinstance(error, OSError)
            raise TransientError(
                Problem(str(self.out), f"{error.strerror}.", "Make room, or write elsewhere.")
            ) from error

    def add_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        self.add_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def add_text(self, name: str, content: str) -> None:
        """Write a text file."""
        (self.staging / name).write_text(content, encoding="utf-8")

    def add_companions(self, checkpoint: Checkpoint) -> None:
        """Copy a checkpoint's tokenizer and whatever else belongs to it beside the weights."""
        for companion in checkpoint.companions:
            assert checkpoint.folder is not None
            target = self.staging / companion.relative_to(checkpoint.folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(companion, target)


class TensorWriter:
    """The weight files of one output, filled slice by slice from any thread.

    Leaving the `with` block without an error checks that every byte was written and syncs.
    """

    def __init__(
        self, folder: Path, layout: Layout, *, resume: bool = False, made: bool = False
    ) -> None:
        """Make the files in `folder` at their full size, with headers and index.

        Args:
            folder: where they go.
            layout: what they are.
            resume: whether files that are there already hold some of the output.
            made: whether another process has made them and writes to them too: none is made here,
                and leaving the `with` block is for the other one.
        """
        self._places: dict[str, tuple[int, TensorSpec]] = {}
        self._fds: list[int] = []
        self._missing = 0
        self._lock = threading.Lock()
        try:
            for file, specs in layout.shards.items():
                new = os.O_CREAT if resume else os.O_CREAT | os.O_EXCL
                fd = os.open(folder / file, os.O_RDWR | (0 if made else new), 0o644)
                self._fds.append(fd)
                header = layout.headers[file]
                data = sum(spec.nbytes for spec in specs)
                if not made:
                    _allocate(fd, len(header) + data)
                    _write_all(fd, memoryview(header), 0)
                self._missing += data
                for spec in specs:
                    self._places[spec.name] = (fd, spec)
            # A journal may speak of them from now on.
            sync_folder(folder)
        except BaseException:
            self.close()
            raise
        if len(layout.shards) > 1 and not made:
            stem = next(iter(layout.shards)).partition("-")[0]
            weight_map = {s.name: file for file, specs in layout.shards.items() for s in specs}
            index = {"metadata": {"total_size": self._missing}, "weight_map": weight_map}
            (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))

    def write(self, name: str, start: int, data: memoryview, *, again: bool = False) -> None:
        """Write a tensor's bytes from element `start` on, as stored.

        Each byte is written once, unless `again` says that it was written before.
        """
        fd, spec = self._places[name]
        offset = start * dtypes.itemsize(spec.dtype)
        if offset + len(data) > spec.nbytes:
            raise ValueError(f"{len(data)} bytes from element {start} do not fit into {spec}")
        _write_all(fd, data, spec.start + offset)
        if not again:
            with self._lock:
                self._missing -= len(data)

    def skip(self, nbytes: int) -> None:
        """Count bytes that an interrupted run has written."""
        with self._lock:
            self._missing -= nbytes

    def sync(self) -> None:
        """Make durable what was written so far; other threads may go on writing."""
        for fd in self._fds:
            os.fdatasync(fd)

    def copy(self, name: str, source: Checkpoint, source_name: str) -> None:
        """Copy a whole tensor from an open checkpoint, byte for byte."""
        spec = source.specs()[source_name]
        step = max(1, _COPY_BYTES // dtypes.itemsize(spec.dtype))
        buffer = memoryview(bytearray(min(step, spec.numel) * dtypes.itemsize(spec.dtype)))
        for start in range(0, spec.numel, step):
            stop = min(start + step, spec.numel)
            part = buffer[: (stop - start) * dtypes.itemsize(spec.dtype)]
            source.read_into(source_name, start, part)
            self.write(name, start, part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self._missing:
                    raise RuntimeError(f"{self._missing} bytes of the output were never written")
                for fd in self._fds:
                    os.fsync(fd)
        finally:
            self.close()

    def close(self) -> None:
        """Close the files as they are; a second call does nothing."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []


@contextlib.contextmanager
def one_file(out: Path, layout: Layout) -> Iterator[TensorWriter]:
    """Write a layout of one file, which appears under `out` when whole, and never otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        with TensorWriter(folder, layout) as writer:
            yield writer
        (file,) = layout.shards
        refuse_existing(out)  # it may have appeared meanwhile
        (folder / file).rename(out)
        sync_folder(out.parent)
    except OSError as error:
        if is_disk_full(error):
            problem = Problem(str(out), f"{error.strerror}.", "Make room, or write elsewhere.")
            raise TransientError(problem) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _allocate(fd: int, size: int) -> None:
    """Reserve the file's room at once, so that a full disk fails now and not half-way."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in (*_FULL, errno.EFBIG):
            raise TransientError(
                Problem("output", f"no room on the disk for a file of {size / 1e9:.2f} GB.")
            ) from None
        os.ftruncate(fd, size)  # a file system that cannot reserve


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def is_disk_full(error: BaseException) -> bool:
    """Whether the system says that there is no room left for what is written."""
    return isinstance(error, OSError) and error.errno in _FULL


def sync_tree(folder: Path) -> None:
    """Make a folder durable with everything in it."""
    for home, _, files in os.walk(folder, topdown=False):
        for file in files:
            sync_folder(Path(home, file))
        sync_folder(Path(home))


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable, or a file's bytes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
