"""Repairs: maps from a model's probabilities to better calibrated ones, fitted on held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

from numpy.typing import ArrayLike

from alliage.errors import nearest
from alliage.evaluation.calibration.checks import Floats
from alliage.evaluation.calibration.repairs.isotonic import Isotonic
from alliage.evaluation.calibration.repairs.lipschitz import LipschitzIsotonic
from alliage.evaluation.calibration.repairs.platt import Platt
from alliage.evaluation.calibration.repairs.temperature import Temperature

__all__ = [
    "REPAIRS",
    "Isotonic",
    "LipschitzIsotonic",
    "Platt",
    "Repair",
    "Temperature",
    "fit_repair",
    "repair_from_json",
]


class Repair(Protocol):
    """What every repair is: a frozen dataclass.

    Probabilities are [n], of one event, or [n, k], of all classes. Repairs of one event treat two
    classes as one event, and more each against the rest; the rows are then made to sum to 1.
    """

    name: ClassVar[str]

    @classmethod
    def fit(
        cls, probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Self:
        """The repair that suits labelled predictions best.

        Args:
            probabilities: [n] or [n, k].
            labels: [n], 0 or 1, or classes.
            weights: [n], non-negative; all equal by default.

        Raises:
            ValueError: an argument of another shape or range.
        """
        ...

    def apply(self, probabilities: ArrayLike) -> Floats:
        """Repaired probabilities, of the same shape.

        Raises:
            ValueError: of another number of classes than it was fitted on.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """What `repair_from_json` reads."""
        ...

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The repair that was written.

        Raises:
            ValueError: the document is not of such a repair.
        """
        ...


REPAIRS: Mapping[str, type[Repair]] = {
    one.name: one for one in (Temperature, Platt, Isotonic, LipschitzIsotonic)
}


def fit_repair(
    name: str, probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> Repair:
    """Fit the repair of a name: see `Repair.fit`.

    Raises:
        ValueError: no such repair, or an argument of another shape or range.
    """
    return _named(name).fit(probabilities, labels, weights=weights)


def repair_from_json(document: Mapping[str, Any]) -> Repair:
    """The repair that `Repair.to_json` wrote.

    Raises:
        ValueError: it is of none.
    """
    return _named(str(document.get("repair"))).from_json(document)


def _named(name: str) -> type[Repair]:
    if name not in REPAIRS:
        raise ValueError(f"There is no repair {name!r}. {nearest(name, list(REPAIRS))}")
    return REPAIRS[name]
