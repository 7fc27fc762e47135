"""What each step of a merge does to the size of parameters, as in arXiv:2306.01708, section 7.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STEPS: Mapping[str, str] = {
    "mean": "plain mean of all task vectors",
    "trimmed": "mean after trimming: what is trimmed counts as zero",
    "trimmed_disjoint": "mean of what trimming keeps",
    "elected_disjoint": "mean of what has the elected sign, without trimming",
    "trimmed_elected": "mean after trimming and election: all else counts as zero",
    "ties": "mean of what trimming keeps and has the elected sign",
}
# Of the models that move a parameter, the share on the side of the majority.
AGREEMENTS = ("0.5-0.6", "0.6-0.7", "0.7-0.8", "0.8-0.9", "0.9-1.0", "unchanged")
_UNCHANGED = len(AGREEMENTS) - 1


def merge_steps(deltas: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Parameters as the steps of TIES leave them.

    A sign is elected by the sum. Where a sum is exactly zero though its terms are not, the positive
    side is taken, not the majority of all parameters as in the paper: too few to be seen in a mean.

    Args:
        deltas: [n, m], the task vectors.
        kept: [n, m], where trimming keeps them.

    Returns:
        [6, m], in the order of `STEPS`.
    """
    count, one = np.float32(len(deltas)), np.float32(1)
    trimmed = deltas * kept
    raw, raw_agreeing, raw_number = _elected(deltas)
    total, agreeing, number = _elected(trimmed)
    keeping = _true(kept).astype(np.float32)
    return np.stack(
        [
            raw / count,
            total / count,
            total / np.maximum(keeping, one),
            raw_agreeing / np.maximum(raw_number, one),
            agreeing / count,
            agreeing / np.maximum(number, one),
        ]
    )


def _elected(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Sums over models [m]: of all, of those with the elected sign; and how many these are."""
    total = np.zeros(values.shape[1], np.float32)
    for row in values:  # in the order of the models
        total += row
    elected = np.where(total >= 0, np.float32(1), np.float32(-1))
    agreeing = np.zeros_like(total)
    along = values * elected
    for row in along:
        agreeing += np.maximum(row, 0)
    return total, agreeing * elected, _true(along > 0).astype(np.float32)


def _true(marks: NDArray[np.bool_]) -> NDArray[np.int16]:
    """How many of the marks [n, m] are true, [m]."""
    count = np.zeros(marks.shape[1], np.int16)
    for row in marks.view(np.int8):
        count += row
    return count


def agreement_bins(deltas: NDArray[np.float32]) -> NDArray[np.int16]:
    """In which of `AGREEMENTS` each parameter of task vectors [n, m] lies.

    Bins hold their lower end, the last one both ends.
    """
    found: NDArray[np.int16] = agreement_table(len(deltas))[_true(deltas > 0), _true(deltas < 0)]
    return found


def agreement_table(models: int) -> NDArray[np.int16]:
    """The bin of a parameter, [n + 1, n + 1], by how many models move it up and down."""
    numbers = np.arange(models + 1)
    up, down = np.meshgrid(numbers, numbers, indexing="ij")
    moved = up + down
    tenths = (10 * np.maximum(up, down) - 5 * moved) // np.maximum(moved, 1)
    bins = np.where(moved == 0, _UNCHANGED, np.minimum(tenths, _UNCHANGED - 1))
    return bins.astype(np.int16)


class Magnitudes(NamedTuple):
    """Sums over parameters by how many models keep them and by their agreement; they add up.

    Attributes:
        counts: [n + 1, 6].
        totals: [6 steps, n + 1, 6], of magnitudes.
        squares: the same of their squares.
    """

    counts: NDArray[np.float64]
    totals: NDArray[np.float64]
    squares: NDArray[np.float64]

    def plus(self, other: Magnitudes) -> Magnitudes:
        """Of both."""
        return Magnitudes(*(a + b for a, b in zip(self, other, strict=True)))

    @classmethod
    def none(cls, models: int) -> Magnitudes:
        """Of no parameters."""
        nothing = np.zeros((models + 1, len(AGREEMENTS)))
        return cls(nothing, *np.zeros((2, len(STEPS), *nothing.shape)))

    @classmethod
    def of(cls, deltas: NDArray[np.float32], kept: NDArray[np.bool_]) -> Magnitudes:
        """Of a block, as `merge_steps` takes it."""
        shape = (len(deltas) + 1, len(AGREEMENTS))
        places = _true(kept) * len(AGREEMENTS) + agreement_bins(deltas)
        sizes = np.abs(merge_steps(deltas, kept)).astype(np.float64)

        def sums(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
            found = np.bincount(places, weights, shape[0] * shape[1])
            return found.reshape(shape).astype(np.float64)

        return cls(
            sums(None),
            np.stack([sums(size) for size in sizes]),
            np.stack([sums(size * size) for size in sizes]),
        )
