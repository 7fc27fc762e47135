"""The metrics of surveys: one entry for each, and what it is computed from.

A metric of sums or counts is worked out once for a module, a layer or the model; all others for
each matrix, and a module, layer or model has the mean over its matrices, as in Fosse 2024
(hal-04622988).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alliage.geometry.distances import ANGLE_DISTANCES, ye_lim
from alliage.geometry.surveying import chance
from alliage.geometry.surveying.decomposed import Cores, Decomposed
from alliage.geometry.surveying.pairs import Angles, Counts, Sums

Needs = Literal["sums", "counts", "angles", "cores", "decompositions", "alignments", "differences"]
Sense = Literal["distance", "share", "amount"]


@dataclass(frozen=True)
class Metric:
    """One way to compare two updates.

    Attributes:
        name: in commands, tables and `Survey`.
        definition: in words and signs, without the full stop.
        unit: of the values.
        needs: what it is worked out from, see `measuring`.
        measure: from that to values, float64 [n, n]; [groups, n, n] for sums and counts.
        sense: a "distance", small for models that are alike; a "share", large for them; or an
            "amount" of something else.
        link: between the names of a pair: [i, j] of a directed metric reads "i in j".
        chance: from the same to the mean and the variance [2, n, n] for updates that have nothing
            to do with each other; NaN for what is not known. None where nothing is.
        by_chance: what is random there, in words.
        of_factors: whether it is defined for the factors A and B of LoRA alone.
    """

    name: str
    definition: str
    unit: str
    needs: Needs
    measure: Callable[[Any], Tensor]
    sense: Sense = "distance"
    link: str = "–"
    chance: Callable[[Any], Tensor] | None = None
    by_chance: str = ""
    of_factors: bool = False

    @property
    def directed(self) -> bool:
        """Whether [i, j] and [j, i] differ: "i in j" is not "j in i"."""
        return self.link != "–"


def _of_angles(name: str) -> Metric:
    distance = ANGLE_DISTANCES[name]
    unitless = ("chordal", "projection_frobenius", "projection_two", "procrustes", "martin")
    return Metric(
        name,
        (distance.__doc__ or "").rstrip("."),
        "none" if name in (*unitless, "binet_cauchy") else "radians",
        "angles",
        lambda angles: distance(angles.values),
        chance=lambda angles: chance.of_angles(name, angles),
        by_chance="random subspaces",
        of_factors=True,
    )


def _ye_lim(angles: Angles) -> Tensor:
    ranks = torch.tensor(angles.ranks)
    values: Tensor = ye_lim(angles.values, ranks[:, None], ranks)
    return values


def _into(name: str, definition: str, unit: str, measure: Callable[[Cores], Tensor],
          sense: Sense = "share",
          by_chance: Callable[[Cores], Tensor] | None = None) -> Metric:  # fmt: skip
    return Metric(
        name, definition, unit, "cores", measure,
        sense=sense, link="in", chance=by_chance,
        by_chance="random directions" if by_chance is not None else "",
    )  # fmt: skip


def _itself(values: Tensor) -> Tensor:
    return values


_ALL = (
    Metric(
        "l2", "‖ΔW₁ − ΔW₂‖_F", "weights", "sums", Sums.l2,
        chance=chance.of_l2, by_chance="random updates", of_factors=True,
    ),
    Metric(
        "l2_spectral", "‖ΔW₁ − ΔW₂‖₂, the largest singular value of the difference", "weights",
        "differences", _itself,
    ),
    Metric(
        "cosine", "1 − cos of the angle between ΔW₁ and ΔW₂, from 0 to 2", "none",
        "sums", Sums.cosine_distance,
        chance=chance.of_cosine, by_chance="random updates", of_factors=True,
    ),
    *map(_of_angles, ANGLE_DISTANCES),
    Metric(
        "ye_lim", "√(Σθ² + |k₁ − k₂|·π²/4), the geodesic among spaces of all dimensions", "radians",
        "angles", _ye_lim,
        chance=lambda angles: chance.of_angles("ye_lim", angles),
        by_chance="random subspaces", of_factors=True,
    ),
    _into(
        "explained_energy", "‖S₂‖²/‖ΔW‖² of the first update, S₂ᵢ = uᵢᵀΔW vᵢ in the singular "
        "directions of the second, from 0 to 1", "none",
        Cores.explained_energy, by_chance=chance.of_explained_energy,
    ),
    _into(
        "core_energy", "‖UᵀΔW V‖²/‖ΔW‖² of the first update in the spaces of the second, "
        "from 0 to 1", "none", Cores.core_energy, by_chance=chance.of_core_energy,
    ),
    _into(
        "rec", "Σ min(pᵢ, qᵢ) of the second's own spectrum and of |S₂|, both as shares, from 0 to "
        "1; called the Bayes error rate between spectra, and twice that", "none",
        Cores.overlap, by_chance=chance.of_overlap,
    ),
    _into(
        "spectrum_l1", "Σ|S₁ᵢ − S₂ᵢ| of the second's own spectrum and the first's in its "
        "directions",
        "weights", lambda cores: cores.distance(1.0), "amount",
    ),
    _into(
        "spectrum_l2", "√Σ(S₁ᵢ − S₂ᵢ)² of the second's own spectrum and the first's in its "
        "directions", "weights", lambda cores: cores.distance(2.0), "amount",
    ),
    Metric(
        "sar", "subspace alignment ratio, ‖U_kU_kᵀΔW₁‖/‖ΔW₁‖ in the main left directions of ΔW₁ + "
        "ΔW₂, from 0 to 1; of whole updates where a side is at most 1024, else of leading "
        "directions", "none", "alignments", _itself,
        sense="share", link="merged with",
    ),
    Metric(
        "sti", "singular task interference, ‖(UᵀU − I)Σ(VᵀV − I)‖₁ of all singular vectors of "
        "LoRA and the leading ones of dense updates; with itself 2ΣS", "weights",
        "decompositions", Decomposed.interference, sense="amount",
        chance=chance.of_interference, by_chance="random directions",
    ),
    Metric(
        "sign_agreement", "share of equal signs among elements that both change, from 0 to 1",
        "none", "counts", Counts.agreement, sense="share",
        chance=chance.of_agreement, by_chance="random signs",
    ),
    Metric(
        "top_overlap", "Jaccard index of the fifth of each parameter's elements with the largest "
        "magnitudes, from 0 to 1", "none", "counts", Counts.overlap, sense="share",
        chance=chance.of_overlapping_places, by_chance="random places",
    ),
)  # fmt: skip

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
