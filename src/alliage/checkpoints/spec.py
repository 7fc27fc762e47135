"""What is known of a tensor without reading it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alliage.checkpoints import dtypes

if TYPE_CHECKING:
    from pathlib import Path

    from alliage.checkpoints.remote import RemotePath


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's place and form, from a header alone.

    Attributes:
        name: the tensor's name in its file.
        shape: its dimensions; empty for a scalar.
        dtype: safetensors code, "BF16".
        file: the file that holds it.
        start: offset of its first byte in the file; -1 where the format gives no byte range.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path | RemotePath
    start: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self.numel * dtypes.itemsize(self.dtype)

    @property
    def is_weight(self) -> bool:
        """Whether it can be compared and merged; integer buffers and the like cannot."""
        return self.dtype in dtypes.WEIGHT_DTYPES

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


def is_text(name: str) -> bool:
    """Whether a name can be written to a file or a terminal: no lone surrogates in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
