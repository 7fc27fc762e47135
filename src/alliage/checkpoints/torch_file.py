"""Reading PyTorch's own weight files (pytorch_model.bin) without running what they contain."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from alliage.checkpoints import dtypes
from alliage.checkpoints.spec import TensorSpec
from alliage.errors import AlliageError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    import torch


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
        try:
            loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except pickle.UnpicklingError as error:
            raise AlliageError(
                Problem(
                    str(path),
                    "holds objects other than tensors, which would be code to run: "
                    f"{str(error).splitlines()[0]}",
                    "Refused. If you trust its author, convert it where it can do no harm: "
                    'python -c "import sys, torch, safetensors.torch as s; '
                    "s.save_file({k: v.clone() for k, v in torch.load(sys.argv[1], "
                    f"weights_only=False).items()}}, 'model.safetensors')\" {path}",
                )
            ) from None
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise AlliageError(
                Problem(
                    str(path),
                    f"is not a readable PyTorch file: {str(error).splitlines()[0]}",
                    "The file is damaged, incomplete, or in the format from before PyTorch 1.6: "
                    "fetch it again or save it as safetensors.",
                )
            ) from None
        others = (
            [key for key, value in loaded.items() if not isinstance(value, torch.Tensor)]
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
            self.specs[name] = TensorSpec(name, tuple(tensor.shape), code, path, -1)
        if problems:
            raise AlliageError(problems)

    def read_into(self, spec: TensorSpec, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with a tensor's bytes from element `start` on, as stored."""
        import torch

        stop = start + len(buffer) // dtypes.itemsize(spec.dtype)
        flat = self._tensors[spec.name].reshape(-1)[start:stop]
        torch.frombuffer(buffer, dtype=torch.uint8).copy_(flat.contiguous().view(torch.uint8))

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

    def close(self) -> None:
        """Let go of the mapping."""
        self._tensors = {}
