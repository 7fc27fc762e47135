"""What measured merges have taught: models, their ranges and where they come from, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from alliage.geometry.forecasting.model import Model

FILE = Path(__file__).with_name("learned.json")
Needs = Literal["weights", "answers"]
Form = Literal["full", "lora", "any"]
ANY = "any"

_SIZES = 4.0  # a base may be so many times smaller or larger than those that were learned from


@dataclass(frozen=True)
class Lesson:
    """A model for one way of tuning and one method of merging.

    Attributes:
        form: how the models were tuned; "any" for predictors that do not depend on it.
        method: of the merges; "any" too.
        needs: what the predictors are made from: "weights" alone, or "answers" to unlabelled
            examples.
        model: what was learned.
        sizes: parameters of the smallest and of the largest base.
        ranks: the smallest and the largest rank of LoRA; zeros in full.
        merges: how many were measured.
        spearman: with the losses of tasks that were left out, mean over tasks.
        error: of forecasts for tasks that were left out, in points, mean.
    """

    form: Form
    method: str
    needs: Needs
    model: Model
    sizes: tuple[int, int]
    ranks: tuple[int, int]
    merges: int
    spearman: float
    error: float

    def outside(self, values: Mapping[str, float], size: int, ranks: tuple[int, int]) -> list[str]:
        """Why there is no forecast for some models: what lies outside what was learned from.

        Args:
            values: of the predictors.
            size: parameters of the base.
            ranks: of the models, the smallest and the largest; zeros in full.
        """
        reasons = []
        low, high = self.sizes[0] / _SIZES, self.sizes[1] * _SIZES
        if self.needs == "weights" and not low <= size <= high:
            reasons.append(
                f"the base has {_millions(size)} parameters, learned from "
                f"{_millions(self.sizes[0])} to {_millions(self.sizes[1])}"
            )
        if self.form == "lora" and not self.ranks[0] <= ranks[0] <= ranks[1] <= self.ranks[1]:
            reasons.append(f"the rank is {_span(ranks)}, learned from {_span(self.ranks)}")
        return reasons + self.model.outside(values)


@dataclass(frozen=True)
class Comparison:
    """What one method cost beside another on the same models, measured.

    Attributes:
        form: how the models were tuned.
        method: that is compared.
        against: with this one.
        low: points that `against` cost at least.
        high: points that it cost at most.
        losses: how many losses of a task were compared.
        difference: points that the method cost more, mean; negative: less.
        error: its standard error, over tasks and seeds.
    """

    form: Form
    method: str
    against: str
    low: float
    high: float
    losses: int
    difference: float
    error: float


@dataclass(frozen=True)
class Learned:
    """The whole file.

    Attributes:
        command: that learns it again.
        source: of the measured merges: data, models, versions.
        lessons: one for each form, method and need.
        comparisons: of methods.
    """

    command: str
    source: Mapping[str, Any]
    lessons: Sequence[Lesson]
    comparisons: Sequence[Comparison]

    def find(self, form: str, method: str, needs: Needs) -> Lesson | None:
        """The lesson for a form, a method and what is known."""
        for lesson in self.lessons:
            fits = lesson.form in (form, ANY) and lesson.method in (method, ANY)
            if fits and lesson.needs == needs:
                return lesson
        return None

    def methods(self, form: str, needs: Needs) -> list[str]:
        """The methods that a forecast can be made for."""
        return [each.method for each in self.lessons if (each.form, each.needs) == (form, needs)]

    def write(self, path: Path = FILE) -> None:
        """Write the file; the same content gives the same bytes."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path = FILE) -> Self:
        """Read what `write` wrote."""
        content = json.loads(path.read_text())
        lessons = [
            Lesson(
                **{
                    **each,
                    "model": Model.from_json(each["model"]),
                    "sizes": tuple(each["sizes"]),
                    "ranks": tuple(each["ranks"]),
                }
            )
            for each in content["lessons"]
        ]
        comparisons = [Comparison(**each) for each in content["comparisons"]]
        return cls(content["command"], content["source"], lessons, comparisons)


@cache
def shipped() -> Learned:
    """What comes with Alliage."""
    return Learned.read()


def _millions(count: int) -> str:
    return f"{count / 1e6:,.3g} million"


def _span(ranks: tuple[int, int]) -> str:
    return str(ranks[0]) if ranks[0] == ranks[1] else f"{ranks[0]} to {ranks[1]}"
