"""What a method returned, held against what was asked of it: plug-ins may return anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alliage.errors import AlliageError, Problem
from alliage.merging.registry import Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def merged_tensor(merged: Any, method: Method, name: str, shape: Sequence[int]) -> Tensor:
    """A method's result, when it is a float32 tensor of one model's shape.

    Args:
        merged: what the method returned.
        method: which.
        name: of the tensor that was merged.
        shape: of one model's part.

    Raises:
        AlliageError: it is anything else.
    """
    import torch

    expected = f"expected {list(shape)}, float32"
    if not isinstance(merged, torch.Tensor):
        raise _wrong(method, name, type(merged).__name__, expected)
    if tuple(merged.shape) != tuple(shape):
        raise _wrong(method, name, str(list(merged.shape)), expected)
    if merged.dtype != torch.float32:
        raise _wrong(method, name, str(merged.dtype).removeprefix("torch."), expected)
    return merged


def merged_factors(
    merged: Any, method: Method, name: str, sizes: tuple[int, int], rank: int
) -> tuple[Tensor, Tensor]:
    """A method's factors B [d_out, r] and A [r, d_in], when they are such, and r at most `rank`.

    Args:
        merged: what the method returned.
        method: which.
        name: of the module that was merged.
        sizes: the module's (d_out, d_in).
        rank: that the method declared.

    Raises:
        AlliageError: they are anything else.
    """
    import torch

    d_out, d_in = sizes
    expected = f"expected B [{d_out}, r] and A [r, {d_in}], float32, r at most {rank}"
    pair = isinstance(merged, tuple | list) and len(merged) == 2
    if not pair or not all(isinstance(each, torch.Tensor) for each in merged):
        raise _wrong(method, name, type(merged).__name__, expected)
    B, A = merged
    shapes = f"{list(B.shape)} and {list(A.shape)}"
    r = B.shape[-1] if B.ndim else 0
    if tuple(B.shape) != (d_out, r) or tuple(A.shape) != (r, d_in) or r > rank:
        raise _wrong(method, name, shapes, expected)
    if {B.dtype, A.dtype} != {torch.float32}:
        kinds = " and ".join(str(each.dtype).removeprefix("torch.") for each in (B, A))
        raise _wrong(method, name, kinds, expected)
    return B, A


def _wrong(method: Method, name: str, found: str, expected: str) -> AlliageError:
    fix = f"Mend the method: check_method({method.name!r}) of alliage.testing tells more."
    return AlliageError(
        Problem(f"method {method.name}", f"returned {found} for {name}, {expected}.", fix)
    )
