"""What a forecast holds: expected losses with intervals, groups, advice; or why there is none."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alliage.errors import Problem, UsageError
from alliage.geometry.forecasting.groups import groups
from alliage.geometry.forecasting.learned import Needs
from alliage.geometry.forecasting.model import LEVEL

if TYPE_CHECKING:
    import pandas as pd

TOGETHER = 2.0  # points that a pair in a group may lose


@dataclass(frozen=True)
class Expected:
    """What one task is expected to lose in one merge.

    Attributes:
        models: that are merged.
        task: the model whose own task it is.
        method: of the merge.
        points: of accuracy, in %, that the merge is expected to lose against this model; NaN
            without a forecast.
        low: lower end of the interval that holds nine losses of ten.
        high: upper end.
        predictors: what it is worked out from, by name.
        refused: why there is no forecast; empty where there is one.
    """

    models: tuple[str, ...]
    task: str
    method: str
    points: float
    low: float
    high: float
    predictors: Mapping[str, float]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """Expected losses of pairs, and of all models at once.

    Attributes:
        names: of the models.
        expected: one for each method, merge and task.
        needs: what it was made from: "weights" or "answers".
        advice: sentences.
        notes: what a reader must know.
    """

    names: tuple[str, ...]
    expected: tuple[Expected, ...]
    needs: Needs
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def methods(self) -> tuple[str, ...]:
        """Of the merges."""
        return tuple(dict.fromkeys(each.method for each in self.expected))

    @property
    def refused(self) -> bool:
        """Whether no loss at all could be forecast."""
        return all(each.refused for each in self.expected)

    def pairs(self, method: str) -> dict[tuple[str, str], Expected]:
        """(task, merged with) -> what is expected of merges of two."""
        return {
            (each.task, next(name for name in each.models if name != each.task)): each
            for each in self.expected
            if len(each.models) == 2 and each.method == method
        }

    def groups(self, method: str, threshold: float = TOGETHER) -> list[tuple[str, ...]]:
        """Models that go together: no pair is expected to lose more than `threshold` points.

        Raises:
            UsageError: the forecast is from weights, which do not tell how much is lost.
        """
        if self.needs == "weights":
            what = "weights do not tell how much a task loses."
            raise UsageError(Problem("groups", what, "Give the tasks of the models."))
        losses = {key: each.points for key, each in self.pairs(method).items()}
        return groups(self.names, losses, threshold)

    def best(self) -> str | None:
        """The method with the least expected loss over all pairs; None without forecasts.

        None from weights, too: they do not tell how much is lost.
        """
        if self.needs == "weights":
            return None
        means = {}
        for method in self.methods:
            points = [each.points for each in self.pairs(method).values() if not each.refused]
            if points:
                means[method] = sum(points) / len(points)
        return min(means, key=means.__getitem__) if means else None

    def findings(self) -> list[str]:
        """What stands out, one line each; and why there is no forecast."""
        lines = self._from_weights() if self.needs == "weights" else []
        if (method := self.best()) is not None:
            known = [each for each in self.pairs(method).values() if not each.refused]
            known.sort(key=lambda each: each.points)
            least, most = known[0], known[-1]
            lines.append(f"Least expected loss by {method}: {_told(least)}; most: {_told(most)}.")
            found = self.groups(method)
            together = [", ".join(group) for group in found if len(group) > 1]
            alone = [group[0] for group in found if len(group) == 1]
            if together:
                lines.append(
                    f"No pair within a group is expected to lose more than {TOGETHER:g} points "
                    f"by {method}: {'; '.join(together)}"
                    + (f". Alone: {', '.join(alone)}." if alone else ".")
                )
            else:
                lines.append(
                    f"By {method} one task of every pair or both are expected to lose more than "
                    f"{TOGETHER:g} points."
                )
        reasons = itertools.chain.from_iterable(each.refused for each in self.expected)
        counts: dict[str, int] = {}
        for reason in reasons:
            counts[reason] = counts.get(reason, 0) + 1
        for reason, count in sorted(counts.items(), key=lambda item: -item[1])[:4]:
            lines.append(f"No forecast for {count} of {len(self.expected)} losses: {reason}.")
        return [*lines, *self.advice]

    def _from_weights(self) -> list[str]:
        """The order of each task's partners, and models that merging does not change."""
        lines = []
        for method in self.methods:
            same, ordered = [], []
            for task in self.names:
                own = [each for (name, _), each in self.pairs(method).items() if name == task]
                known = [each for each in own if not each.refused]
                same += [each.models for each in known if each.high == 0]
                if len(known) > 1:
                    known.sort(key=lambda each: each.points)
                    least, most = (_others(each) for each in (known[0], known[-1]))
                    ordered.append(f"{task} with {least} the least, with {most} the most")
            for models in dict.fromkeys(same):
                what = f"the layers of {' and '.join(models)} are equal: nothing is lost."
                lines.append(f"By {method}: {what}")
            if ordered:
                lines.append(f"By {method} loses {'; '.join(ordered)}.")
        if not self.refused:
            lines.append(
                "Weights do not tell how much a task loses, nor which task loses more: give each "
                "model's task for that."
            )
        return lines

    def to_rows(self) -> Iterator[dict[str, Any]]:
        """Every expected loss, as rows of the results table "forecast"."""
        for each in self.expected:
            yield {
                "models": " + ".join(each.models),
                "task": each.task,
                "method": each.method,
                "needs": self.needs,
                "loss": each.points,
                "low": each.low,
                "high": each.high,
                "refused": "; ".join(each.refused),
            }

    def to_pandas(self) -> pd.DataFrame:
        """The rows, with the predictors as further columns."""
        import pandas as pd

        rows = [
            {**row, **each.predictors}
            for row, each in zip(self.to_rows(), self.expected, strict=True)
        ]
        return pd.DataFrame(rows)

    def matrix(self, method: str) -> Sequence[tuple[str, ...]]:
        """A row for each task: its name, and what it is expected to lose merged with each other.

        From weights the places of its partners: 1 is expected to cost the task least.
        """
        pairs = self.pairs(method)
        if self.needs == "weights":
            return [
                (task, *(_place(pairs, task, other) for other in self.names)) for task in self.names
            ]
        return [
            (task, *("" if other == task else _cell(pairs[task, other]) for other in self.names))
            for task in self.names
        ]

    def together(self) -> Sequence[tuple[str, ...]]:
        """A row for each method: its name, and what each task loses where all are merged."""
        whole = {
            (each.method, each.task): each
            for each in self.expected
            if len(each.models) == len(self.names)
        }
        return [
            (method, *(_cell(whole[method, name]) for name in self.names))
            for method in self.methods
        ]

    @property
    def caption(self) -> str:
        """What the table of pairs says."""
        return ORDER if self.needs == "weights" else CAPTION

    def __repr__(self) -> str:
        state = "no forecast" if self.refused else f"by {', '.join(self.methods)}"
        return f"<Forecast of merges of {len(self.names)} models from {self.needs}: {state}>"

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(repr(self)[1:-1])}. {html.escape(self.caption)}</p>"]
        for method in self.methods:
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in ("", *self.names))
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
                for row in self.matrix(method)
            )
            parts.append(
                f"<p><b>{html.escape(method)}</b></p>"
                f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            )
        parts += [f"<p>{html.escape(line)}</p>" for line in (*self.findings(), *self.notes)]
        return "\n".join(parts)


CAPTION = (
    "Points of accuracy that the task of a row is expected to lose when its model is merged with "
    f"the column's; of ten losses of tasks left out while learning, {LEVEL * 10:g} lay within it."
)

ORDER = "The partners of the task of a row in order: 1 is expected to cost it least."


def _place(pairs: Mapping[tuple[str, str], Expected], task: str, other: str) -> str:
    if task == other:
        return ""
    points = [each.points for (name, _), each in pairs.items() if name == task]
    own = pairs[task, other].points
    return "–" if math.isnan(own) else str(1 + sum(each < own for each in points))


def _others(expected: Expected) -> str:
    return ", ".join(name for name in expected.models if name != expected.task)


def _cell(expected: Expected) -> str:
    if math.isnan(expected.points):
        return "–"
    return f"{expected.points:.1f} ± {(expected.high - expected.low) / 2:.1f}"


def _told(expected: Expected) -> str:
    return f"{expected.task} with {_others(expected)} {_cell(expected)} points"
