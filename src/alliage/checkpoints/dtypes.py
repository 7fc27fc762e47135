"""Element types, by the codes that safetensors headers use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# code -> (bytes an element, name in torch)
_DTYPES = {
    "F64": (8, "float64"),
    "F32": (4, "float32"),
    "F16": (2, "float16"),
    "BF16": (2, "bfloat16"),
    "F8_E4M3": (1, "float8_e4m3fn"),
    "F8_E5M2": (1, "float8_e5m2"),
    "I64": (8, "int64"),
    "I32": (4, "int32"),
    "I16": (2, "int16"),
    "I8": (1, "int8"),
    "U64": (8, "uint64"),
    "U32": (4, "uint32"),
    "U16": (2, "uint16"),
    "U8": (1, "uint8"),
    "BOOL": (1, "bool"),
}
_CODES = {name: code for code, (_, name) in _DTYPES.items()}

# The types whose tensors are weights: they can be compared and merged. All others are
# buffers (positions, counters, quantised blocks) and are only ever copied.
WEIGHT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})


def is_known(code: str) -> bool:
    """Whether a safetensors dtype code is one that Alliage can read."""
    return code in _DTYPES


def itemsize(code: str) -> int:
    """Bytes that one element takes."""
    return _DTYPES[code][0]


def torch_dtype(code: str) -> torch.dtype:
    """The torch type of a safetensors code."""
    import torch

    dtype: torch.dtype = getattr(torch, _DTYPES[code][1])
    return dtype


def code_of(name: str) -> str | None:
    """The safetensors code of a type's torch name ("bfloat16", "torch.bfloat16"), if known."""
    return _CODES.get(str(name).removeprefix("torch."))
