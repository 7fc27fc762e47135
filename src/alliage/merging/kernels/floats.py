"""Stored types to float32 and back, inside kernels: bfloat16 travels as its bits in uint16.

Loops are over slices with indices from zero, which numba turns into vector instructions; an index
with an offset could be negative, for all it knows, and is not.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import types
from numba.extending import overload

from alliage.compiling import compiled as compile_function

TILE = 1024  # elements at a time: the tiles of all models stay in the first-level cache
MAGNITUDE = np.uint32(0x7FFFFFFF)
NOT_FINITE = np.uint32(0x7F800000)  # the smallest magnitude's pattern that is not a number

_VERSION = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()[:12]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a kernel, which has this file's functions compiled into it."""
    return compile_function(function, _VERSION)


def widen(stored: Any, bits: Any) -> None:
    """Write stored values as the bits of float32."""
    raise NotImplementedError("for compiled code")


def narrow(bits: Any, stored: Any) -> Any:
    """Round float32, given as bits, to the stored type; the largest magnitude's pattern.

    Of what is given and of what is stored: either alone may be finite.
    """
    raise NotImplementedError("for compiled code")


@overload(widen)  # type: ignore[untyped-decorator]
def _widen(stored: Any, bits: Any) -> Any:  # noqa: ARG001
    if stored.dtype == types.uint16:

        def from_bfloat16(stored: Any, bits: Any) -> Any:
            for i in range(len(stored)):
                bits[i] = np.uint32(stored[i]) << np.uint32(16)

        return from_bfloat16

    def from_float32(stored: Any, bits: Any) -> Any:
        values = bits.view(np.float32)
        for i in range(len(stored)):
            values[i] = stored[i]

    return from_float32


@overload(narrow)  # type: ignore[untyped-decorator]
def _narrow(bits: Any, stored: Any) -> Any:  # noqa: ARG001
    if stored.dtype == types.uint16:

        def to_bfloat16(bits: Any, stored: Any) -> Any:
            """Round to nearest, ties to even; some NaN become zero, so their pattern counts too."""
            top = np.uint32(0)
            for i in range(len(stored)):
                top = max(top, bits[i] & MAGNITUDE)
                odd = (bits[i] >> np.uint32(16)) & np.uint32(1)
                rounded = (bits[i] + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
                top = max(top, rounded & MAGNITUDE)
                stored[i] = np.uint16(rounded >> np.uint32(16))
            return top

        return to_bfloat16

    def to_float32(bits: Any, stored: Any) -> Any:
        values = bits.view(np.float32)
        top = np.uint32(0)
        for i in range(len(stored)):
            top = max(top, bits[i] & MAGNITUDE)
            stored[i] = values[i]
        return top

    return to_float32
