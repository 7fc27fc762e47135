"""What is compared as one weight, and how it is read from task vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alliage.checkpoints.names import is_conv1d, kind_of, module_of
from alliage.geometry.surveying.pairs import LowRankUpdate
from alliage.vectors import LowRankVector, Vector

_BLOCK = 1 << 16  # elements of each model at a time: float64 rows of ten models fit a cache
_PART = 1 << 22  # elements of a whole matrix that are read at a time

# Linear and convolution layers among embeddings; the others are tables, one vector in each row.
_PROJECTION = re.compile(r"(proj\w*|dense|conv)\.weight$")


@dataclass(frozen=True)
class Piece:
    """A parameter, or the queries, keys or values of one that holds them together.

    Attributes:
        parameter: its name.
        part: "query", "key" or "value" of a fused projection; empty for a whole parameter.
        outputs: the outputs that belong to the part.
    """

    parameter: str
    part: str = ""
    outputs: tuple[int, ...] = ()

    @property
    def module(self) -> str:
        """The module it is counted for: a part of a fused one has a name of its own."""
        module = module_of(self.parameter)
        return f"{module}.{self.part}" if self.part else module


class Rows(NamedTuple):
    """A few rows of a weight as the matrix that it is, or of its transpose.

    Attributes:
        start: the first row.
        stop: the end of the rows.
        deltas: [n, stop − start, columns], float32.
    """

    start: int
    stop: int
    deltas: Tensor


def is_matrix(vector: Vector, piece: Piece) -> bool:
    """Whether it maps inputs to outputs, unlike biases and norms."""
    return len(vector.shapes[piece.parameter]) > 1


def is_upright(vector: Vector, piece: Piece) -> bool:
    """Whether a weight is stored as [outputs, inputs] rather than as [inputs, outputs].

    GPT-2's projections are not, nor are tables of embeddings, with one output in each row.
    """
    config = vector.base.config if vector.base is not None else None
    name = piece.parameter
    table = kind_of(name) == "embedding" and not _PROJECTION.search(name)
    return bool(piece.part) or not (table or is_conv1d((config or {}).get("model_type"), name))


def smaller_side(vector: Vector, piece: Piece) -> int:
    """The lesser of its outputs and inputs."""
    if piece.part:
        return min(len(piece.outputs), *_folded(vector, piece))
    return min(_folded(vector, piece))


def with_factors(vectors: Sequence[Vector], piece: Piece) -> list[LowRankVector]:
    """Those of some vectors that have the update as factors."""
    return [
        vector
        for vector in vectors
        if isinstance(vector, LowRankVector)
        and piece.parameter.endswith(".weight")
        and module_of(piece.parameter) in vector.modules
    ]


def factors(vector: LowRankVector, piece: Piece) -> LowRankUpdate:
    """ΔW = scale·B·A, of the part's own outputs."""
    B, A, scale = vector.factors(module_of(piece.parameter))
    return LowRankUpdate(B[list(piece.outputs)] if piece.part else B, A, scale)


def matrix(vector: Vector, piece: Piece) -> Tensor:
    """The whole update as [outputs, inputs], float32; a bias as one column."""
    stored = _stored(vector, piece)
    return stored if is_upright(vector, piece) else stored.mT


def row_blocks(vectors: Sequence[Vector], piece: Piece) -> Iterator[Rows]:
    """The updates of all vectors, whole rows at a time, of the matrix if `is_upright`.

    A part of a fused projection is held in memory whole, everything else is streamed.
    """
    if piece.part:
        whole = torch.stack([_stored(vector, piece) for vector in vectors])
        step = max(_BLOCK // whole.shape[2], 1)
        for start in range(0, whole.shape[1], step):
            block = whole[:, start : start + step]
            yield Rows(start, start + block.shape[1], block)
        return
    shape = vectors[0].shapes[piece.parameter]
    rows, columns = _folded(vectors[0], piece)
    bases = {id(vector.base): vector.base for vector in vectors}
    base = next(iter(bases.values())) if len(bases) == 1 else None
    step = max(_BLOCK // max(columns, 1), 1)
    if math.prod(shape) == 0:
        return
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        first, last = start * columns, stop * columns
        shared = base.read(piece.parameter, first, last).float() if base is not None else None
        deltas = [vector.block(piece.parameter, first, last, shared) for vector in vectors]
        yield Rows(start, stop, torch.stack(deltas).reshape(len(vectors), -1, columns))


def _stored(vector: Vector, piece: Piece) -> Tensor:
    """The update as it is stored, [rows, columns]; of a fused one the part's outputs as rows."""
    delta = _whole(vector, piece.parameter).reshape(_folded(vector, piece))
    if not piece.part:
        return delta
    upright = is_upright(vector, Piece(piece.parameter))
    return (delta if upright else delta.mT)[list(piece.outputs)]


def _whole(vector: Vector, parameter: str) -> Tensor:
    """`Vector.delta`, without the whole of what it is the difference of beside it."""
    numel = math.prod(vector.shapes[parameter])
    delta = torch.empty(numel)
    for start in range(0, numel, _PART):
        stop = min(start + _PART, numel)
        delta[start:stop] = vector.block(parameter, start, stop)
    return delta


def _folded(vector: Vector, piece: Piece) -> tuple[int, int]:
    """Rows and columns; a convolution's inputs are one axis with its places."""
    shape = vector.shapes[piece.parameter]
    if len(shape) < 2:
        return math.prod(shape), 1
    if is_upright(vector, Piece(piece.parameter)):
        return shape[0], math.prod(shape[1:])
    return math.prod(shape[:-1]), shape[-1]
