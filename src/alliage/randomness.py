"""Random numbers that an element has by its place, whoever asks for it and in whatever order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def uniform(seed: int, name: str, model: int, start: int, stop: int) -> NDArray[np.float32]:
    """Numbers in [0, 1) for elements [start, stop) of a tensor, the same whatever is asked for.

    Philox counts instead of walking (Salmon et al. 2011), so any element's number is known without
    those before it; its key is the SHA-256 of (seed, tensor, model).
    """
    key = hashlib.sha256(f"{seed}\0{name}\0{model}".encode()).digest()
    generator = np.random.Philox(key=int.from_bytes(key[:16], "little"))
    generator.advance(start // 4)  # four numbers a count
    skipped = start % 4
    raw = generator.random_raw(stop - start + skipped)[skipped:]
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
