"""Reading PyTorch's own weight files (pytorch_model.bin) without running what they contain."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

from alliage.checkpoints import dtypes
from alliage.checkpoints.safetensors_file import identity, refuse_changed, version
from alliage.checkpoints.spec import TensorSpec, is_text
from alliage.errors import AlliageError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_DAMAGED = (
    "The file is damaged, incomplete, or in the format from before PyTorch 1.6: "
    "fetch it again or save it as safetensors."
)
_LOCAL_HEADER = 30  # bytes before the name in a zip archive's member


class TorchFile:
    """A state dict in PyTorch's zip format, mapped into memory.

    Only tensors are unpickled (`weights_only=True`); a file with any other object is refused.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            AlliageError: the file holds more than tensors, or cannot be read.
        """
        import torch

        self.path = path
        records = _records(path)
        status = path.stat()
        self._opened = identity(status)
        self.version = version(status)
        try:
            loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except pickle.UnpicklingError as error:
            raise AlliageError(
                Problem(
                    str(path),
                    "holds objects other than tensors, which would be code to run: "
                    f"{_first_line(error)}",
                    "Refused. If you trust its author, convert it where it can do no harm: "
                    'python -c "import sys, torch, safetensors.torch as s; '
                    "s.save_file({k: v.clone() for k, v in torch.load(sys.argv[1], "
                    f"weights_only=False).items()}}, 'model.safetensors')\" {path}",
                )
            ) from None
        except Exception as error:  # damaged pickles fail in as many ways as there are opcodes
            what = f"is not a readable PyTorch file: {_first_line(error)}"
            raise AlliageError(Problem(str(path), what, _DAMAGED)) from None
        others = (
            [
                key
                for key, value in loaded.items()
                if not (isinstance(key, str) and is_text(key) and isinstance(value, torch.Tensor))
            ]
            if isinstance(loaded, dict)
            else [type(loaded).__name__]
        )
        if others:
            raise AlliageError(
                Problem(
                    str(path),
                    "is no plain state dict: expected names with tensors, found "
                    f"{', '.join(map(repr, others[:5]))}.",
                    "Save model.state_dict() by itself, best as safetensors.",
                )
            )
        self._tensors: dict[str, torch.Tensor] = loaded
        self.metadata: dict[str, str] = {}
        self.specs = {}
        problems = []
        for name, tensor in loaded.items():
            code = dtypes.code_of(str(tensor.dtype))
            if code is None:
                problems.append(
                    Problem(f"{path}: {name}", f"has the unsupported type {tensor.dtype}.")
                )
                continue
            if tensor.layout is not torch.strided or tensor.device.type != "cpu":
                what = f"is a {tensor.layout} tensor on {tensor.device}; expected a dense one."
                problems.append(Problem(f"{path}: {name}", what))
                continue
            stored = tensor.untyped_storage().nbytes()
            if tensor.nbytes > stored:
                what = f"claims {tensor.nbytes} bytes and has {stored}: an expanded view."
                fix = "Save it with contiguous()."
                problems.append(Problem(f"{path}: {name}", what, fix))
                continue
            self.specs[name] = TensorSpec(name, tuple(tensor.shape), code, path, -1)
        if problems:
            raise AlliageError(problems)
        if _places(loaded.values()) != records:
            what = "is not a readable PyTorch file: its tensors are not the archive's records."
            raise AlliageError(Problem(str(path), what, _DAMAGED))

    def read_into(self, spec: TensorSpec, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with a tensor's bytes from element `start` on, as stored."""
        import torch

        if (
            self.path.stat().st_size < self.version[0]
        ):  # touching the lost part would end the process
            what = "the file became shorter while it was read."
            raise AlliageError(Problem(f"{self.path}: {spec.name}", what))
        stop = start + len(buffer) // dtypes.itemsize(spec.dtype)
        flat = self._tensors[spec.name].reshape(-1)[start:stop]
        torch.frombuffer(buffer, dtype=flat.dtype).copy_(flat)

    def shared(self) -> dict[str, str]:
        """Names that are the same storage as another: later name -> first name."""
        seen: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
        twins = {}
        for name, tensor in self._tensors.items():
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if tensor.numel() and key in seen:
                twins[name] = seen[key]
            else:
                seen[key] = name
        return twins

    def check_unchanged(self) -> None:
        """Look whether the file is still the one that was opened.

        Raises:
            AlliageError: it is not.
        """
        refuse_changed(self.path, self._opened)

    def close(self) -> None:
        """Let go of the mapping."""
        self._tensors = {}


def _records(path: Path) -> list[tuple[int, int]]:
    """(offset, bytes) of the tensors' records in the archive, counted from the first of them.

    Raises:
        AlliageError: it is no zip archive, or a compressed one, which could unfold without end.
    """
    found = []
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise zipfile.BadZipFile(f"{member.filename} is compressed")
                if member.compress_size != member.file_size:
                    raise zipfile.BadZipFile(f"{member.filename} has two sizes")
                if member.file_size and member.filename.partition("/")[2].startswith("data/"):
                    file.seek(member.header_offset)
                    local = file.read(_LOCAL_HEADER)
                    if not local.startswith(b"PK\3\4"):
                        raise zipfile.BadZipFile(f"{member.filename} has no header of its own")
                    name, extra = struct.unpack("<HH", local[-4:])
                    offset = member.header_offset + _LOCAL_HEADER + name + extra
                    found.append((offset, member.file_size))
    except Exception as error:  # zipfile, too, is not made for hostile input
        what = f"is not a readable PyTorch file: {_first_line(error)}"
        raise AlliageError(Problem(str(path), what, _DAMAGED)) from None
    return _from_first(found)


def _places(tensors: Iterable[torch.Tensor]) -> list[tuple[int, int]]:
    """(offset, bytes) of the tensors' storages in the mapped file, counted from the first."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return _from_first((each.data_ptr(), each.nbytes()) for each in storages if each.nbytes())


def _from_first(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    ordered = sorted(set(ranges))
    return [(start - ordered[0][0], size) for start, size in ordered]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
