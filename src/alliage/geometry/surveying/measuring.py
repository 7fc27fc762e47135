"""One weight of several task vectors, measured for all pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from alliage.checkpoints.names import module_of
from alliage.errors import Problem
from alliage.geometry.alignment import Decomposition
from alliage.geometry.angles import column_space
from alliage.geometry.leading import (
    EXACT_SIDE,
    Leading,
    exact_alignment,
    leading_directions,
    spectral_norm,
)
from alliage.geometry.low_rank import low_rank_svd
from alliage.geometry.signs import top_threshold
from alliage.geometry.surveying.decomposed import Cores, Decomposed
from alliage.geometry.surveying.metrics import Needs
from alliage.geometry.surveying.pairs import (
    Counts,
    LowRankUpdate,
    Sums,
    dense_sums,
    low_rank_pairs,
    space_angles,
)
from alliage.geometry.surveying.pieces import (
    Piece,
    factors,
    is_matrix,
    is_upright,
    matrix,
    row_blocks,
    smaller_side,
    with_factors,
)
from alliage.geometry.truncation import fewest_directions
from alliage.vectors import Vector

Side = Literal["left", "right"]
Of = Literal["update", "A", "B"]

TOP = 0.2  # the density that TIES-merging recommends


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        needs: of the metrics asked for, and "spectra" for the models' own singular values.
        rank: at most so many leading directions stand for a dense update.
        energy: instead of a rank, the share of a dense update that its directions must hold.
        side: whether angles are between images, "left", or between row spaces, "right".
        of: "update", or "A" or "B" for one factor of LoRA alone.
    """

    needs: frozenset[Needs | Literal["spectra"]]
    rank: int
    energy: float | None = None
    side: Side = "left"
    of: Of = "update"


class Spectra(NamedTuple):
    """The singular values of n updates of one matrix.

    Attributes:
        S: of each the leading ones, descending; of factors all.
        whole: of each all; None where they are not known.
        norms: ‖ΔW_i‖_F of the whole updates [n].
        energies: the share of each update that the values hold [n]; 1 for factors.
        errors: near each value, by so many shares of the largest, is one of the update [n].
    """

    S: list[Tensor]
    whole: list[Tensor | None]
    norms: Tensor
    energies: Tensor
    errors: Tensor


class Measured(NamedTuple):
    """What one weight contributes.

    Attributes:
        sums: over its elements.
        counts: of its elements, if needed.
        found: what the other metrics need, by that; nothing of biases and norms.
        spectra: of the models, if needed.
    """

    sums: Sums
    counts: Counts | None
    found: Mapping[Needs, Any]
    spectra: Spectra | None


def measure(vectors: Sequence[Vector], piece: Piece, request: Request) -> Measured | list[Problem]:
    """Measure a weight that all vectors have.

    Low-rank updates are measured by their factors where all vectors have them; only counts of
    elements look at their products, block by block. Else blocks of the updates are streamed, and
    for directions one whole matrix is in memory at a time, for differences and sums two and theirs.

    Args:
        vectors: n task vectors.
        piece: in `shapes` of each.
        request: what to measure.

    Returns:
        the measurements; or each file and tensor that holds NaN or infinity.
    """
    if request.of != "update":
        return _one_factor(vectors, piece, request)
    if len(with_factors(vectors, piece)) == len(vectors):
        return _factored(vectors, piece, request)
    sums, numel = Sums.zeros(len(vectors)), 0
    for block in row_blocks(vectors, piece):
        deltas = block.deltas.flatten(1)
        sums = sums.plus(dense_sums(deltas))
        numel += deltas.shape[1]
    if not sums.inner.diagonal().isfinite().all():
        return _flaws(vectors, piece)
    sums = sums.of_whole(numel)
    counts = _counted(vectors, piece) if "counts" in request.needs else None
    if not is_matrix(vectors[0], piece):
        return Measured(sums, counts, {}, None)
    return Measured(sums, counts, *_dense(vectors, piece, request, sums))


def _factored(
    vectors: Sequence[Vector], piece: Piece, request: Request
) -> Measured | list[Problem]:
    updates = [factors(vector, piece) for vector in with_factors(vectors, piece)]
    if flaws := _factor_flaws(vectors, piece, updates):
        return flaws
    needs, found = request.needs, dict[Needs, Any]()
    right = request.side == "right"
    sided = [LowRankUpdate(u.A.mT, u.B.mT, u.scale) for u in updates] if right else updates
    sums, angles = low_rank_pairs(sided, angles="angles" in needs)
    if angles is not None:
        found["angles"] = angles
    counts = _counted(vectors, piece) if "counts" in needs else None
    if not needs & {"cores", "decompositions", "alignments", "differences", "spectra"}:
        return Measured(sums, counts, found, None)
    parts = tuple(Decomposition(*low_rank_svd(*update)) for update in updates)
    decomposed = Decomposed(parts, (len(updates[0].B), updates[0].A.shape[1]))
    norms = torch.stack([torch.linalg.norm(part.S) for part in parts])
    if "cores" in needs:
        found["cores"] = decomposed.cores(norms)
    if "decompositions" in needs:
        found["decompositions"] = decomposed
    if "alignments" in needs:
        found["alignments"] = decomposed.alignment()
    if "differences" in needs:
        found["differences"] = decomposed.spectral_distances()
    ones, S = torch.ones(len(parts), dtype=torch.float64), [part.S for part in parts]
    return Measured(sums, counts, found, Spectra(S, [*S], norms, ones, 0 * ones))


def _dense(
    vectors: Sequence[Vector], piece: Piece, request: Request, sums: Sums
) -> tuple[dict[Needs, Any], Spectra | None]:
    needs, found = request.needs, dict[Needs, Any]()
    if "differences" in needs:
        found["differences"] = _differences(vectors, piece)
    drawn = smaller_side(vectors[0], piece) > EXACT_SIDE
    if "alignments" in needs and not drawn:
        found["alignments"] = _alignments(vectors, piece)
    directed = needs & {"angles", "cores", "decompositions", "spectra"}
    if not directed and not (drawn and "alignments" in needs):
        return found, None
    leading = [_leading(vector, piece, request) for vector in vectors]
    parts = [Decomposition(each.U, each.S, each.V) for each in leading]
    if "angles" in needs:
        left = request.side == "left"
        found["angles"] = space_angles([part.U if left else part.V for part in parts])
    decomposed = Decomposed(tuple(parts), (len(parts[0].U), len(parts[0].V)))
    norms = sums.inner.diagonal().sqrt()
    if "decompositions" in needs:
        found["decompositions"] = decomposed
    if "alignments" in needs and drawn:
        found["alignments"] = decomposed.alignment()
    if "cores" in needs:
        found["cores"] = _whole_cores(vectors, piece, decomposed, norms)
    energies = torch.tensor([each.energy for each in leading], dtype=torch.float64)
    errors = torch.tensor([each.error for each in leading], dtype=torch.float64)
    whole = [each.spectrum for each in leading]
    return found, Spectra([part.S for part in parts], whole, norms, energies, errors)


def _leading(vector: Vector, piece: Piece, request: Request) -> Leading:
    """An update's leading directions, the share that they hold, and how exact they are."""
    if with_factors([vector], piece):
        U, S, V = low_rank_svd(*factors(with_factors([vector], piece)[0], piece))
        energy = request.energy
        k = min(request.rank, len(S)) if energy is None else fewest_directions(S, energy)
        share = float(S[:k].square().sum() / S.square().sum())
        return Leading(U[:, :k], S[:k], V[:, :k], share, 0.0, S)
    rank = request.rank if request.energy is None else None
    return leading_directions(matrix(vector, piece), rank, request.energy)


def _whole_cores(
    vectors: Sequence[Vector], piece: Piece, decomposed: Decomposed, norms: Tensor
) -> Cores:
    """What all of each update is in the leading directions of each other one."""
    (S, ranks), n = decomposed.spectra(), len(vectors)
    k = S.shape[1]
    U, V = (
        torch.stack([torch.nn.functional.pad(side, (0, k - side.shape[1])) for side in sides])
        for sides in zip(*((part.U, part.V) for part in decomposed.parts), strict=True)
    )
    upright = is_upright(vectors[0], piece)
    rows, columns = (U, V) if upright else (V, U)
    right = columns.movedim(0, 1).flatten(1)  # [columns, n·k]
    values = torch.zeros(n, n, k, k, dtype=torch.float64)
    for block in row_blocks(vectors, piece):
        own = rows[:, block.start : block.stop]
        for i, delta in enumerate(block.deltas):
            image = (delta.double() @ right).reshape(len(delta), n, k).movedim(1, 0)
            values[i] += own.mT @ image
    return Cores(values if upright else values.mT, S, ranks, norms, decomposed.size)


def _differences(vectors: Sequence[Vector], piece: Piece) -> Tensor:
    """‖ΔW_i − ΔW_j‖₂ [n, n], two matrices at a time."""
    n = len(vectors)
    found = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n - 1):
        first = matrix(vectors[i], piece)
        for j in range(i + 1, n):
            found[i, j] = found[j, i] = spectral_norm(first - matrix(vectors[j], piece))
    return found


def _alignments(vectors: Sequence[Vector], piece: Piece) -> Tensor:
    """SAR of i in the sum of i and j [n, n], of whole updates, two matrices at a time."""
    n = len(vectors)
    found = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        first = matrix(vectors[i], piece)
        (found[i, i],) = exact_alignment(first, [first])
        for j in range(i + 1, n):
            second = matrix(vectors[j], piece)
            found[i, j], found[j, i] = exact_alignment(first + second, [first, second])
    return found


def _counted(vectors: Sequence[Vector], piece: Piece) -> Counts:
    thresholds = torch.tensor([top_threshold(matrix(vector, piece), TOP) for vector in vectors])
    counts, numel = Counts.zeros(len(vectors)), 0
    for block in row_blocks(vectors, piece):
        deltas = block.deltas.flatten(1)
        counts = counts.plus(Counts.of(deltas, thresholds))
        numel += deltas.shape[1]
    return counts.of_whole(numel)


def _one_factor(
    vectors: Sequence[Vector], piece: Piece, request: Request
) -> Measured | list[Problem]:
    """A or B alone, without its scale; angles are between the spaces in which they meet."""
    updates = [factors(vector, piece) for vector in with_factors(vectors, piece)]
    if flaws := _factor_flaws(vectors, piece, updates):
        return flaws
    sides = [update.A.mT if request.of == "A" else update.B for update in updates]
    sums = Sums.zeros(len(sides))
    if "sums" in request.needs:  # and so the ranks are equal
        sums = dense_sums(torch.stack([side.flatten() for side in sides]))
        sums = sums.of_whole(sides[0].numel())
    if "angles" not in request.needs:
        return Measured(sums, None, {}, None)
    spaces = [column_space(side) for side in sides]
    angles = space_angles([basis[:, :rank] for basis, rank in spaces])
    return Measured(sums, None, {"angles": angles}, None)


def _factor_flaws(
    vectors: Sequence[Vector], piece: Piece, updates: Sequence[LowRankUpdate]
) -> list[Problem]:
    module = module_of(piece.parameter)
    return [
        Problem(f"{spec.file}: {spec.name}", "holds NaN or infinity.")
        for vector, update in zip(with_factors(vectors, piece), updates, strict=True)
        for side, factor in enumerate(update[:2])
        if not _finite(factor)
        for spec in [vector.stored(module)[side]]
    ]


def _flaws(vectors: Sequence[Vector], piece: Piece) -> list[Problem]:
    """The base's tensor where that is to blame, else those of the vectors."""
    what, name = "holds NaN or infinity.", piece.parameter
    for vector in vectors:
        if vector.base is not None and not _finite(vector.base.read(name)):
            return [Problem(f"{vector.base.specs()[name].file}: {name}", what)]
    sources = [vector.source(name) for vector in vectors if not _finite(vector.delta(name))]
    return [Problem(f"{source.file}: {source.name}", what) for source in sources]


def _finite(values: Tensor) -> bool:
    # One sum is far cheaper than a look at each element; it may also overflow by itself.
    return bool(values.sum().isfinite() or values.isfinite().all())
