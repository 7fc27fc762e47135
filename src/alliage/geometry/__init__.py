"""How far apart task vectors are, what they share, and maps of both.

The names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alliage.geometry.alignment import Decomposition as Decomposition
    from alliage.geometry.alignment import singular_task_interference as singular_task_interference
    from alliage.geometry.alignment import subspace_alignment as subspace_alignment
    from alliage.geometry.alignment import sum_of as sum_of
    from alliage.geometry.angles import principal_angles as principal_angles
    from alliage.geometry.distances import angle_sum as angle_sum
    from alliage.geometry.distances import asimov as asimov
    from alliage.geometry.distances import binet_cauchy as binet_cauchy
    from alliage.geometry.distances import chordal as chordal
    from alliage.geometry.distances import fubini_study as fubini_study
    from alliage.geometry.distances import geodesic as geodesic
    from alliage.geometry.distances import martin as martin
    from alliage.geometry.distances import procrustes as procrustes
    from alliage.geometry.distances import projection_frobenius as projection_frobenius
    from alliage.geometry.distances import projection_two as projection_two
    from alliage.geometry.distances import ye_lim as ye_lim
    from alliage.geometry.inclusion import core_energy as core_energy
    from alliage.geometry.inclusion import explained_energy as explained_energy
    from alliage.geometry.interference.interfering import count_interference as count_interference
    from alliage.geometry.interference.result import Interference as Interference
    from alliage.geometry.intervals import mean_interval as mean_interval
    from alliage.geometry.low_rank import low_rank_distances as low_rank_distances
    from alliage.geometry.low_rank import low_rank_svd as low_rank_svd
    from alliage.geometry.low_rank import spectral_projection as spectral_projection
    from alliage.geometry.mapping.maps import classical_mds as classical_mds
    from alliage.geometry.mapping.maps import principal_components as principal_components
    from alliage.geometry.null import random_angles as random_angles
    from alliage.geometry.signs import sign_agreement as sign_agreement
    from alliage.geometry.signs import top_overlap as top_overlap
    from alliage.geometry.spectra import effective_rank as effective_rank
    from alliage.geometry.spectra import spectral_entropy as spectral_entropy
    from alliage.geometry.spectra import spectrum_distance as spectrum_distance
    from alliage.geometry.spectra import spectrum_overlap as spectrum_overlap
    from alliage.geometry.spectra import stable_rank as stable_rank
    from alliage.geometry.surveying.comparing import compare as compare
    from alliage.geometry.surveying.comparing import survey as survey
    from alliage.geometry.surveying.surveys import Survey as Survey

_HOMES = {
    "alignment": (
        "Decomposition", "singular_task_interference", "subspace_alignment", "sum_of",
    ),
    "angles": ("principal_angles",),
    "surveying.comparing": ("compare", "survey"),
    "distances": (
        "angle_sum", "asimov", "binet_cauchy", "chordal", "fubini_study",
        "geodesic", "martin", "procrustes", "projection_frobenius",
        "projection_two", "ye_lim",
    ),
    "inclusion": ("core_energy", "explained_energy"),
    "interference.interfering": ("count_interference",),
    "interference.result": ("Interference",),
    "intervals": ("mean_interval",),
    "low_rank": ("low_rank_distances", "low_rank_svd", "spectral_projection"),
    "mapping.maps": ("classical_mds", "principal_components"),
    "null": ("random_angles",),
    "signs": ("sign_agreement", "top_overlap"),
    "spectra": (
        "effective_rank", "spectral_entropy", "spectrum_distance", "spectrum_overlap",
        "stable_rank",
    ),
    "surveying.surveys": ("Survey",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"alliage.geometry.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'alliage.geometry' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
