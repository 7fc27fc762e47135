"""Python functions compiled by numba, cached on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from numba import config, njit

from alliage.checkpoints.digests import cache_folder

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function, version: str = "") -> _Function:
    """Compile a function on first use, without the interpreter's lock, and cache it on disk.

    Numba compiles it again when its own file changes. A function that has functions of another file
    compiled into it needs that file's version, in its name in the cache, to tell one from the next.
    Where numba may write to none of its folders, Alliage's own cache is tried; without any, each
    process compiles.
    """
    if version:
        function.__qualname__ += f"_{version}"
    made: _Function = njit(nogil=True, error_model="numpy")(function)
    usual = config.CACHE_DIR
    with contextlib.suppress(RuntimeError):  # nor may Alliage write, or nobody is at home
        try:
            made.enable_caching()  # type: ignore[attr-defined]
        except RuntimeError:  # "cannot cache function: no locator available"
            config.CACHE_DIR = str(cache_folder() / "numba")
            made.enable_caching()  # type: ignore[attr-defined]
        finally:
            config.CACHE_DIR = usual
    return made
