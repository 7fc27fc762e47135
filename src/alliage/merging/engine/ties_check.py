"""Tied weights are taken from one of their names: refuse files in which the names differ."""

from __future__ import annotations

from alliage.checkpoints import Checkpoint
from alliage.errors import AlliageError, Problem
from alliage.merging.planning.plan import Plan

_BYTES = 4 * 2**20


def check_ties(plan: Plan) -> None:
    """Compare the stored copies of tied weights, byte by byte.

    Raises:
        AlliageError: a copy differs from what it should repeat; all of them.
    """
    assert plan.base is not None
    checkpoints = [plan.base, *(c for vector in plan.vectors for c in vector.checkpoints)]
    problems = [
        Problem(
            f"{checkpoint.specs()[later].file}: {later}",
            f"config.json ties it to {first}, but the two differ.",
            "Set tie_word_embeddings to false in its config.json if both are meant.",
        )
        for checkpoint in checkpoints
        for later, first in checkpoint.ties.items()
        if not _same(checkpoint, later, first)
    ]
    if problems:
        raise AlliageError(problems)


def _same(checkpoint: Checkpoint, one: str, other: str) -> bool:
    spec = checkpoint.specs()[one]
    size = spec.nbytes // max(spec.numel, 1)
    step = max(1, _BYTES // max(size, 1))
    first, second = (bytearray(min(step, spec.numel) * size) for _ in range(2))
    for start in range(0, spec.numel, step):
        count = (min(start + step, spec.numel) - start) * size
        checkpoint.read_into(one, start, memoryview(first)[:count])
        checkpoint.read_into(other, start, memoryview(second)[:count])
        if first[:count] != second[:count]:
            return False
    return True
