"""What must be known of a survey's values before they are read, a sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from alliage.geometry.leading import EXACT_SIDE
from alliage.geometry.surveying.gathering import Contribution
from alliage.geometry.surveying.measuring import Request
from alliage.geometry.surveying.pieces import Piece, is_matrix, smaller_side, with_factors
from alliage.geometry.surveying.selection import some
from alliage.vectors import Vector

_EXACT = 1e-6  # of the largest singular value: what float32 weights themselves are known to


def notes_on_values(
    request: Request,
    by: str,
    vectors: Sequence[Vector],
    weights: Sequence[Piece],
    groups: Mapping[str, Contribution],
    spectra: xr.Dataset,
) -> list[str]:
    """Zero updates, directions that stand for dense updates, and what is not exact or not known."""
    notes, needs = [], request.needs
    sums = request.of == "update" or "sums" in needs
    for index, vector in enumerate(vectors):
        same = [name for name, group in groups.items() if group.sums.inner[index, index] == 0]
        if sums and same:
            what = "equals the base" if request.of == "update" else "is zero"
            notes.append(
                f"{vector.name} {what} in {len(same)} of {len(groups)} {by}s, where "
                f"cosine and angles are not defined: {some(same)}."
            )
    dense = [
        piece
        for piece in weights
        if is_matrix(vectors[0], piece) and len(with_factors(vectors, piece)) < len(vectors)
    ]
    large = [piece.module for piece in dense if smaller_side(vectors[0], piece) > EXACT_SIDE]
    leading = {"angles", "cores", "decompositions"}
    if (dense and needs & leading) or (large and "alignments" in needs):
        notes.append(_note_on_directions(request, len(dense), spectra))
    notes += _note_on_dimensions(vectors, groups)
    if large and "differences" in needs:
        notes.append(
            f"With both sides above {EXACT_SIDE}, l2_spectral is by 64 steps of Lanczos' method: "
            "never too large, and too small by more than 2 % in two of 10⁹ cases for sides of 10⁴: "
            f"{some(large)}."
        )
    if large and "alignments" in needs:
        notes.append(
            f"With both sides above {EXACT_SIDE}, sar is of the leading directions of both updates "
            f"alone and depends on how many there are: {some(large)}."
        )
    if large and "spectra" in needs:
        notes.append(
            "Rank, effective rank, stable rank and entropy are of all singular values, which are "
            f"not known of dense updates with both sides above {EXACT_SIDE}: {some(large)}."
        )
    return notes


def _note_on_dimensions(vectors: Sequence[Vector], groups: Mapping[str, Contribution]) -> list[str]:
    """Of angles where the spaces of one weight are not of one dimension, zero updates apart."""
    every = set().union(*(group.dimensions for group in groups.values()))
    if not any(len(set(ranks) - {0}) > 1 for ranks in every):
        return []
    told = []
    for vector, ranks in zip(vectors, zip(*every, strict=True), strict=True):
        low, high = min(ranks), max(ranks)
        told.append(f"{low if low == high else f'{low}–{high}'} in {vector.name}")
    return [
        f"Spaces differ in dimension: {', '.join(told)}. A pair has as many angles as its smaller "
        "space has dimensions, so distances of such pairs are not comparable but by their chance; "
        "ye_lim counts the surplus."
    ]


def _note_on_directions(request: Request, count: int, spectra: xr.Dataset) -> str:
    many = (
        f"the {request.rank} leading {request.side} singular vectors"
        if request.energy is None
        else f"the leading {request.side} singular vectors that hold {request.energy:.4g} of ‖ΔW‖²"
    )
    text = f"In {count} dense matrices, angles are between the spans of {many}"
    if "energy" in spectra:
        shares, error = spectra["energy"], float(spectra["error"].max())
        text += f"; they hold {float(shares.min()):.2g} to {float(shares.max()):.2g} of it"
        if error > _EXACT:
            text += f", each within {error:.1g} of the largest from some true singular value"
    return f"{text}."
