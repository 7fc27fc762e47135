"""Methods fused for the CPU (numba), each held equal to its definition in torch, bit for bit.

A kernel reads blocks as they are stored and writes the output's type, without a tensor in between.
It stands beside a method only where a benchmark shows that it pays; its file has the method's name
and holds

    merge(base [m], models [n, m], out [m], **arguments) -> Seen

and, for a method with a first pass, `sample` and `measure`. Arrays are float32, or bfloat16 as
uint16. Compiled code is cached on disk, so that only the first run on a machine compiles.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType


@dataclass(frozen=True, slots=True)
class Seen:
    """What a kernel saw in a block.

    Attributes:
        count: for the method's guess.
        depends: whether the result depends on the guess.
        finite: whether all results are finite.
    """

    count: int = 0
    depends: bool = False
    finite: bool = True


def find(method: str) -> ModuleType | None:
    """The kernel of a method, or nothing."""
    name = f"{__name__}.{method}"
    return importlib.import_module(name) if find_spec(name) is not None else None
