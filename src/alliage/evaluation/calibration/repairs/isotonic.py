"""Isotonic regression: the best rising map (Zadrozny and Elkan, 2002)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike

from alliage.evaluation.calibration.checks import Floats
from alliage.evaluation.calibration.repairs.columns import (
    Knots,
    events,
    knots_from_json,
    knots_to_json,
    mapped,
)


@dataclass(frozen=True)
class Isotonic:
    """A rising piecewise linear map, for one event or for each class against the rest."""

    name: ClassVar[str] = "isotonic"
    maps: tuple[Knots, ...]

    @classmethod
    def fit(
        cls, probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Self:
        """The map of least squared error, by scikit-learn; constant beyond what was seen."""
        from sklearn.isotonic import IsotonicRegression

        maps = []
        for event in events(probabilities, labels, weights):
            model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            model.fit(event.values, event.outcomes, sample_weight=event.mass)
            places, values = model.X_thresholds_.tolist(), model.y_thresholds_.tolist()
            maps.append(Knots(tuple(places), tuple(values)))
        return cls(tuple(maps))

    def apply(self, probabilities: ArrayLike) -> Floats:
        """See `Repair.apply`."""
        return mapped(probabilities, [one.at for one in self.maps])

    def to_json(self) -> dict[str, Any]:
        """See `Repair.to_json`."""
        return {"repair": self.name, "knots": knots_to_json(self.maps)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """See `Repair.from_json`."""
        return cls(knots_from_json(document))
