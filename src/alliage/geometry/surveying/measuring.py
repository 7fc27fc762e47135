"""One parameter of several task vectors, measured for all pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alliage.checkpoints.names import is_conv1d, kind_of, module_of
from alliage.errors import Problem
from alliage.geometry.low_rank import leading_left_space, low_rank_svd
from alliage.geometry.surveying.pairs import (
    Angles,
    LowRankUpdate,
    Sums,
    dense_sums,
    low_rank_pairs,
    space_angles,
)
from alliage.vectors import LowRankVector, Vector

_BLOCK = 1 << 16  # elements of each model at a time: float64 rows of ten models fit a cache

# Linear and convolution layers among embeddings; the others are tables, one vector in each row.
_PROJECTION = re.compile(r"(proj\w*|dense|conv)\.weight$")


class Measured(NamedTuple):
    """What one parameter contributes.

    Attributes:
        sums: over its elements.
        angles: between the images of its updates; None for biases and norms, or if not asked for.
    """

    sums: Sums
    angles: Angles | None


def measure(
    vectors: Sequence[Vector], parameter: str, *, rank: int, angles: bool
) -> Measured | list[Problem]:
    """Measure a parameter that all vectors have.

    Low-rank updates are measured by their factors where all vectors have them. Else blocks of the
    updates are streamed, and for angles one whole matrix is in memory at a time.

    Args:
        vectors: n task vectors.
        parameter: in `shapes` of each.
        rank: at most this many leading directions stand for the image of a dense update.
        angles: whether to measure them.

    Returns:
        the measurements; or each file and tensor that holds NaN or infinity.
    """
    factored = with_factors(vectors, parameter)
    if len(factored) == len(vectors):
        module = module_of(parameter)
        updates = [LowRankUpdate(*vector.factors(module)) for vector in factored]
        flaws = [
            Problem(f"{spec.file}: {spec.name}", "holds NaN or infinity.")
            for vector, update in zip(factored, updates, strict=True)
            for side, factor in enumerate(update[:2])
            if not _finite(factor)
            for spec in [vector.stored(module)[side]]
        ]
        return flaws or Measured(*low_rank_pairs(updates, angles=angles))
    sums = _stream_sums(vectors, parameter)
    if not sums.inner.diagonal().isfinite().all():
        return _flaws(vectors, parameter)
    if not angles or len(vectors[0].shapes[parameter]) < 2:
        return Measured(sums, None)
    return Measured(sums, space_angles([_image(vector, parameter, rank) for vector in vectors]))


def with_factors(vectors: Sequence[Vector], parameter: str) -> list[LowRankVector]:
    """Those of some vectors that have the parameter's update as factors."""
    return [
        vector
        for vector in vectors
        if isinstance(vector, LowRankVector)
        and parameter.endswith(".weight")
        and module_of(parameter) in vector.modules
    ]


def _stream_sums(vectors: Sequence[Vector], parameter: str) -> Sums:
    numel = math.prod(vectors[0].shapes[parameter])
    bases = {id(vector.base): vector.base for vector in vectors}
    base = next(iter(bases.values())) if len(bases) == 1 else None
    total = Sums.zeros(len(vectors))
    for start in range(0, numel, _BLOCK):
        stop = min(start + _BLOCK, numel)
        shared = base.read(parameter, start, stop).float() if base is not None else None
        deltas = [vector.block(parameter, start, stop, shared) for vector in vectors]
        total = total.plus(dense_sums(torch.stack(deltas)))
    return total


def _image(vector: Vector, parameter: str, rank: int) -> Tensor:
    """An orthonormal basis [d_out, k] of what the update maps to."""
    if with_factors([vector], parameter):
        assert isinstance(vector, LowRankVector)
        return low_rank_svd(*vector.factors(module_of(parameter)))[0][:, :rank]
    delta = vector.delta(parameter)
    config = vector.base.config if vector.base is not None else None
    if kind_of(parameter) == "embedding" and not _PROJECTION.search(parameter):
        matrix = delta.flatten(0, -2).mT
    elif is_conv1d((config or {}).get("model_type"), parameter):
        matrix = delta.mT
    else:
        matrix = delta.flatten(1)
    return leading_left_space(matrix, rank)


def _flaws(vectors: Sequence[Vector], parameter: str) -> list[Problem]:
    """The base's tensor where that is to blame, else those of the vectors."""
    what = "holds NaN or infinity."
    for vector in vectors:
        if vector.base is not None and not _finite(vector.base.read(parameter)):
            return [Problem(f"{vector.base.specs()[parameter].file}: {parameter}", what)]
    sources = [
        vector.source(parameter) for vector in vectors if not _finite(vector.delta(parameter))
    ]
    return [Problem(f"{source.file}: {source.name}", what) for source in sources]


def _finite(values: Tensor) -> bool:
    # One sum is far cheaper than a look at each element; it may also overflow by itself.
    return bool(values.sum().isfinite() or values.isfinite().all())
