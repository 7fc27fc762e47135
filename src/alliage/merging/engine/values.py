"""Values as they are stored and as float32, and random ones for several models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from alliage.randomness import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def draws(seed: int, name: str, models: int, start: int, stop: int) -> Tensor:
    """What `uniform` gives each of some models for a tensor's elements, [models, stop − start]."""
    import torch

    rows = [uniform(seed, name, model, start, stop) for model in range(models)]
    return torch.from_numpy(np.stack(rows))


def in_shape(flat: Tensor, shape: tuple[int, ...], turned: bool) -> Tensor:
    """Values of a whole tensor's elements [..., m] in its shape, or in that of its transpose."""
    shaped = flat.reshape(*flat.shape[:-1], *shape)
    return shaped.mT if turned else shaped


def widened(raw: NDArray[np.uint8], code: str) -> NDArray[np.float32]:
    """Stored bytes as float32."""
    stored = raw.view(NUMPY[code])
    if code == "BF16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return stored.astype(np.float32, copy=False)


def narrowed(values: NDArray[np.float32], code: str) -> NDArray[Any]:
    """float32 rounded once to a stored type, to nearest, ties to even."""
    if code == "BF16":
        bits = values.view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(NUMPY[code])


def all_finite(values: NDArray[np.float32]) -> bool:
    """Whether none is NaN or infinite."""
    # One sum is far cheaper than a look at each element; it may also overflow by itself.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum(dtype=np.float64))) or bool(np.isfinite(values).all())
