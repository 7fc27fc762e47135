"""Predictors of what a merge costs: each member's update against the merge that is planned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import NamedTuple

from alliage.checkpoints.names import kind_of, layer_of
from alliage.errors import AlliageError, Problem, UsageError
from alliage.geometry.forecasting.displacement import (
    Planned,
    displacement,
    inner_product,
    input_overlap,
    merged_update,
    output_overlap,
    squared_norm,
)
from alliage.geometry.leading import leading_directions
from alliage.geometry.surveying.pairs import LowRankUpdate
from alliage.geometry.surveying.pieces import Piece, factors, is_matrix, matrix, with_factors
from alliage.geometry.surveying.selection import check_vectors, select
from alliage.threads import one_torch_thread
from alliage.vectors import Vector

OnEvent = Callable[[str, int, int], None]

DENSE_RANK = 32
GROUPS = ("all", "query", "value")

# name -> what it is, in words
PREDICTORS: Mapping[str, str] = {
    "distance": "‖M − ΔW‖/‖ΔW‖, how far the merge moves the model, in lengths of its own update",
    "output": "‖ΔWᵀ(M − ΔW)‖/‖ΔWᵀΔW‖, how much of that lies in the outputs that the task uses",
    "input": "‖(M − ΔW)ΔWᵀ‖/‖ΔWΔWᵀ‖, how much of it lies in the inputs that the task has",
    "lost": "1 − ⟨M, ΔW⟩/‖ΔW‖², the share of the update that the merge does not keep",
    "turned": "1 − cos of the angle between M and ΔW",
    "size": "ln ‖ΔW‖/‖W₀‖, how far tuning moved the model from the base",
}


class Sums(NamedTuple):
    """Sums over weights, for one member of one merge.

    Attributes:
        moved: ‖E‖².
        own: ‖ΔW‖².
        merged: ‖M‖².
        kept: ⟨M, ΔW⟩.
        output: ‖ΔWᵀE‖².
        output_own: ‖ΔWᵀΔW‖².
        input: ‖EΔWᵀ‖².
        input_own: ‖ΔWΔWᵀ‖².
        base: ‖W₀‖².
    """

    moved: float = 0.0
    own: float = 0.0
    merged: float = 0.0
    kept: float = 0.0
    output: float = 0.0
    output_own: float = 0.0
    input: float = 0.0
    input_own: float = 0.0
    base: float = 0.0

    def plus(self, other: Sums) -> Sums:
        """Of both sets of weights."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def predictors(self) -> dict[str, float]:
        """The values of `PREDICTORS`; NaN where the member does not differ from the base."""
        if not self.own > 0:
            return dict.fromkeys(PREDICTORS, math.nan)
        length = math.sqrt(self.own * self.merged)
        return {
            "distance": math.sqrt(self.moved / self.own),
            "output": math.sqrt(self.output / self.output_own),
            "input": math.sqrt(self.input / self.input_own),
            "lost": 1 - self.kept / self.own,
            "turned": 1 - self.kept / length if length > 0 else math.nan,
            "size": math.log(self.own / self.base) / 2 if self.base > 0 else math.nan,
        }


Member = tuple[tuple[str, ...], str]  # the models that are merged, and one of them


def predict(
    vectors: Sequence[Vector],
    sets: Sequence[tuple[str, ...]],
    method: Planned = "average",
    *,
    on_event: OnEvent | None = None,
) -> dict[Member, dict[str, float]]:
    """The predictors of every member of some planned merges.

    Matrices in the layers that all vectors change take part. LoRA updates go by their factors; of a
    dense update its `DENSE_RANK` leading singular directions stand for it.

    Args:
        vectors: two or more, with different names.
        sets: of names, two or more in each.
        method: of the merge.
        on_event: called with (stage, done, total).

    Returns:
        (set, member) -> "group.predictor" -> value, for the groups "all", "query" and "value"
        of modules; NaN where the models have no such modules.

    Raises:
        UsageError: vectors that have nothing in common.
        AlliageError: NaN or infinity in weights.
    """
    check_vectors(vectors)
    found, _ = select(vectors, (), None)
    weights = [
        Piece(name)
        for name in found
        if layer_of(name) is not None and is_matrix(vectors[0], Piece(name))
    ]
    if not weights:
        what = "no matrix inside the layers is changed by all models."
        raise UsageError(Problem("models", what, "Forecast models tuned in the same modules."))
    totals: dict[tuple[Member, str], Sums] = {}
    problems: list[Problem] = []

    def work(piece: Piece) -> dict[Member, Sums] | list[Problem]:
        return _measure(vectors, sets, method, piece)

    with one_torch_thread(), ThreadPoolExecutor(cpu_count()) as pool:
        for done, (piece, sums) in enumerate(zip(weights, pool.map(work, weights), strict=True), 1):
            if on_event is not None:
                on_event("measuring", done, len(weights))
            if isinstance(sums, list):
                problems += sums
                continue
            for member, each in sums.items():
                for group in {"all", kind_of(piece.parameter)} & set(GROUPS):
                    totals[member, group] = totals.get((member, group), Sums()).plus(each)
    if problems:
        raise AlliageError(list(dict.fromkeys(problems)))
    return {
        (names, name): {
            f"{group}.{predictor}": value
            for group in GROUPS
            for predictor, value in totals.get(((names, name), group), Sums()).predictors().items()
        }
        for names in sets
        for name in names
    }


def _measure(
    vectors: Sequence[Vector], sets: Sequence[tuple[str, ...]], method: Planned, piece: Piece
) -> dict[Member, Sums] | list[Problem]:
    """The sums of one weight, or which of its files hold NaN or infinity."""
    updates = {vector.name: _update(vector, piece) for vector in vectors}
    flaws = [
        Problem(f"{vector.source(piece.parameter).file}: {piece.parameter}", "NaN or infinity.")
        for vector in vectors
        if not all(bool(side.isfinite().all()) for side in updates[vector.name][:2])
    ]
    base = vectors[0].base
    if flaws or base is None:
        return flaws
    size = float(base.read(piece.parameter).double().square().sum())
    own = {
        name: Sums(
            own=squared_norm(update),
            output_own=output_overlap(update, update),
            input_own=input_overlap(update, update),
            base=size,
        )
        for name, update in updates.items()
    }
    found: dict[Member, Sums] = {}
    for names in sets:
        merged = merged_update([updates[name] for name in names], method)
        norm = squared_norm(merged)
        for name in names:
            update = updates[name]
            moved = displacement(merged, update)
            found[names, name] = own[name]._replace(
                moved=squared_norm(moved),
                merged=norm,
                kept=inner_product(merged, update),
                output=output_overlap(update, moved),
                input=input_overlap(update, moved),
            )
    return found


def _update(vector: Vector, piece: Piece) -> LowRankUpdate:
    """An update as factors; of a dense one its leading directions."""
    if factored := with_factors([vector], piece):
        return factors(factored[0], piece)
    delta = matrix(vector, piece)
    if not bool(delta.isfinite().all()):
        return LowRankUpdate(delta[:, :1] * math.nan, delta[:1], 1.0)
    U, S, V, *_ = leading_directions(delta, DENSE_RANK)
    if not len(S):  # the model equals the base here
        return LowRankUpdate(
            delta.new_zeros(len(delta), 1), delta.new_zeros(1, delta.shape[1]), 1.0
        )
    return LowRankUpdate(U * S, V.mT, 1.0)
