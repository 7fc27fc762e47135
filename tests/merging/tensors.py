"""What tests of methods draw, and what they compare it by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(
    found: Tensor,
    expected: Any,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    dtype: torch.dtype = torch.float32,
) -> None:
    """A tensor of this type is near to numbers, in whatever form they come."""
    torch.testing.assert_close(found, torch.as_tensor(expected).to(dtype), rtol=rtol, atol=atol)
