"""The engine of surveys: opens models, measures parameter by parameter, adds up by module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor

from alliage.checkpoints.names import kind_of, layer_of, module_of
from alliage.errors import AlliageError, Problem, UsageError, nearest
from alliage.geometry.distances import ANGLE_DISTANCES
from alliage.geometry.null import random_angles
from alliage.geometry.surveying.measuring import Measured, measure, with_factors
from alliage.geometry.surveying.opening import Ref, open_vectors
from alliage.geometry.surveying.pairs import Angles, Sums
from alliage.geometry.surveying.selection import (
    check_vectors,
    parse_modules,
    select,
    some,
    stack,
)
from alliage.geometry.surveying.surveys import METRICS, Survey
from alliage.threads import one_torch_thread
from alliage.vectors import Vector

OnEvent = Callable[[str, int, int], None]

DEFAULT_METRICS = ("l2", "cosine", "geodesic")
DEFAULT_RANK = 16
GROUPINGS = ("module", "layer", "model")


def compare(
    base: Ref,
    models: Sequence[Ref] | Mapping[str, Ref],
    metrics: Sequence[str] = DEFAULT_METRICS,
    by: str = "module",
    *,
    modules: str | Sequence[str] | None = None,
    last_layers: int | None = None,
    rank: int = DEFAULT_RANK,
    on_event: OnEvent | None = None,
) -> Survey:
    """Open models tuned from one base and survey the distances between them.

    Args:
        base: the common ancestor: a folder, a weight file, a hub id or an open checkpoint.
        models: full models and adapters, or names with their models.
        metrics: as in `survey`; so are the others.
        by: "module", "layer" or "model".
        modules: kinds of modules.
        last_layers: K, the last layers only.
        rank: directions of dense updates.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: a wrong argument, or a reference that means nothing.
        AlliageError: models that do not fit the base, or NaN in weights; every problem.
    """
    plan = _Plan.checked(metrics, by, modules, last_layers, rank)
    return _run(plan, open_vectors(base, models), on_event)


def survey(
    vectors: Sequence[Vector],
    metrics: Sequence[str] = DEFAULT_METRICS,
    by: str = "module",
    *,
    modules: str | Sequence[str] | None = None,
    last_layers: int | None = None,
    rank: int = DEFAULT_RANK,
    on_event: OnEvent | None = None,
) -> Survey:
    """Distances between all pairs of task vectors of one base, by module.

    Only parameters that all vectors may change take part. L2 and cosine are of a module's
    parameters as one long vector, and so for a layer or the model. Metrics of angles compare the
    images of its matrices, what they can add to the module's output; for a layer or the model they
    are means over its matrices, as in Fosse 2024 (hal-04622988).

    LoRA updates are compared by their factors, with all their directions. A dense update nearly
    always has full rank, and the image of a square one is then everything: its `rank` leading left
    singular vectors stand for it. LoRA updates beside dense ones are taken in the same way.

    Args:
        vectors: two or more, with different names.
        metrics: of `METRICS`: "l2", "cosine" (1 − cos), "geodesic" and other functions of angles.
        by: "module", "layer" or "model".
        modules: kinds of modules (`checkpoints.names.KINDS`) as "q,v" or a list; all by default.
        last_layers: only the last K layers of the stack; what lies outside it is left out too.
        rank: at most so many directions of a dense update, 1 or more.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: a wrong argument, or vectors that have nothing in common.
        AlliageError: NaN or infinity in weights; every file and tensor that holds some.
    """
    return _run(_Plan.checked(metrics, by, modules, last_layers, rank), vectors, on_event)


@dataclass(frozen=True)
class _Plan:
    """The arguments of a survey, checked."""

    metrics: tuple[str, ...]
    by: str
    kinds: tuple[str, ...]
    last_layers: int | None
    rank: int

    @property
    def angle_metrics(self) -> tuple[str, ...]:
        return tuple(metric for metric in self.metrics if metric in ANGLE_DISTANCES)

    @classmethod
    def checked(
        cls,
        metrics: Sequence[str],
        by: str,
        modules: str | Sequence[str] | None,
        last_layers: int | None,
        rank: int,
    ) -> _Plan:
        """Raises UsageError with every problem."""
        problems = [
            Problem(f"metric {metric!r}", "is unknown.", nearest(metric, METRICS))
            for metric in metrics
            if metric not in METRICS
        ]
        if not metrics:
            problems.append(Problem("metrics", "none given.", nearest("", METRICS)))
        if by not in GROUPINGS:
            problems.append(Problem(f"by {by!r}", "is unknown.", nearest(by, GROUPINGS)))
        for name, value in (("last_layers", last_layers), ("rank", rank)):
            if value is not None and value < 1:
                problems.append(Problem(name, f"must be 1 or more, got {value}."))
        kinds = parse_modules(modules, problems)
        if problems:
            raise UsageError(problems)
        return cls(tuple(dict.fromkeys(metrics)), by, kinds, last_layers, rank)


class _Contribution(NamedTuple):
    """What parameters add to their module, layer or model; contributions add up.

    Attributes:
        sums: over elements.
        totals: for each metric of angles, over matrices [4, n, n]: values, means and variances of
            the null, and how many are defined.
    """

    sums: Sums
    totals: Mapping[str, Tensor]

    @classmethod
    def of(cls, measured: Measured, metrics: Sequence[str]) -> _Contribution:
        if measured.angles is None:
            nothing = measured.sums.squared.new_zeros(4, *measured.sums.squared.shape)
            return cls(measured.sums, dict.fromkeys(metrics, nothing))
        totals = {}
        for metric in metrics:
            values = ANGLE_DISTANCES[metric](measured.angles.values)
            row = torch.stack([values, *_null(metric, measured.angles), torch.ones_like(values)])
            totals[metric] = row.masked_fill(values.isnan(), 0.0)
        return cls(measured.sums, totals)

    def plus(self, other: _Contribution) -> _Contribution:
        totals = {metric: total + other.totals[metric] for metric, total in self.totals.items()}
        return _Contribution(self.sums.plus(other.sums), totals)


def _null(metric: str, angles: Angles) -> tuple[Tensor, Tensor]:
    """Mean and variance [n, n] of a metric over random subspaces; a space equals itself."""
    ranks = angles.ranks
    moments = [
        [
            (0.0, 0.0) if i == j else _random(metric, angles.d, min(r1, r2), max(r1, r2))
            for j, r2 in enumerate(ranks)
        ]
        for i, r1 in enumerate(ranks)
    ]
    mean, variance = torch.tensor(moments, dtype=torch.float64).unbind(-1)
    return mean, variance


@functools.lru_cache(maxsize=1024)
def _random(metric: str, d: int, r1: int, r2: int) -> tuple[float, float]:
    if r1 == 0:
        return 0.0, 0.0  # beside a distance that is not defined
    draws = ANGLE_DISTANCES[metric](random_angles(d, r1, r2))
    return float(draws.mean()), float(draws.var())


def _run(plan: _Plan, vectors: Sequence[Vector], on_event: OnEvent | None) -> Survey:
    check_vectors(vectors)
    parameters, notes = select(vectors, plan.kinds, plan.last_layers)
    groups: dict[str, _Contribution] = {}
    problems: list[Problem] = []
    metrics = plan.angle_metrics

    def work(parameter: str) -> _Contribution | list[Problem]:
        measured = measure(vectors, parameter, rank=plan.rank, angles=bool(metrics))
        return measured if isinstance(measured, list) else _Contribution.of(measured, metrics)

    with one_torch_thread(), ThreadPoolExecutor(cpu_count()) as pool:
        for done, (parameter, found) in enumerate(
            zip(parameters, pool.map(work, parameters), strict=True), 1
        ):
            if on_event is not None:
                on_event("measuring", done, len(parameters))
            if isinstance(found, list):
                problems += found
                continue
            name = _group_name(parameter, plan.by)
            groups[name] = groups[name].plus(found) if name in groups else found
    if problems:
        raise AlliageError(problems)
    notes += _notes_on_values(plan, vectors, parameters, groups)
    data, null = _datasets(plan, [vector.name for vector in vectors], groups)
    return Survey(data, null, tuple(notes))


def _datasets(
    plan: _Plan, names: Sequence[str], groups: Mapping[str, _Contribution]
) -> tuple[xr.Dataset, xr.Dataset]:
    """Distances and their null; a value for each group of parameters."""
    sums = Sums(*map(torch.stack, zip(*(group.sums for group in groups.values()), strict=True)))
    values: dict[str, Tensor] = {}
    null: dict[str, Tensor] = {}
    for metric in plan.metrics:
        if metric == "l2":
            values[metric] = sums.l2()
        elif metric == "cosine":
            values[metric] = sums.cosine_distance()
        else:
            totals = torch.stack([group.totals[metric] for group in groups.values()], dim=1)
            value, mean, variance, count = totals.unbind()
            values[metric] = value / count
            null |= {metric: mean / count, f"{metric}_sd": variance.sqrt() / count}
    modules = list(groups)
    layers = [layer_of(module) for module in modules]
    kinds = [kind_of(module) if plan.by == "module" else "" for module in modules]
    coordinates = {
        "task": list(names),
        "other": list(names),
        "module": modules,
        "layer": ("module", [-1 if layer is None else layer for layer in layers]),
        "kind": ("module", kinds),
    }
    data, chance = (
        xr.Dataset(
            {
                name: (("task", "other", "module"), table.movedim(0, -1).numpy())
                for name, table in tables.items()
            },
            coordinates,
        )
        for tables in (values, null)
    )
    for metric in plan.metrics:
        data[metric].attrs["long_name"] = METRICS[metric]
    return data, chance


def _notes_on_values(
    plan: _Plan,
    vectors: Sequence[Vector],
    parameters: Sequence[str],
    groups: Mapping[str, _Contribution],
) -> list[str]:
    notes = []
    for index, vector in enumerate(vectors):
        same = [name for name, group in groups.items() if group.sums.inner[index, index] == 0]
        if same:
            notes.append(
                f"{vector.name} equals the base in {len(same)} of {len(groups)} {plan.by}s, where "
                f"cosine and angles are not defined: {some(same)}."
            )
    if not plan.angle_metrics:
        return notes
    dense = [
        name
        for name in parameters
        if len(vectors[0].shapes[name]) > 1 and len(with_factors(vectors, name)) < len(vectors)
    ]
    if dense:
        notes.append(
            f"In {len(dense)} dense matrices, angles are between the spans of the {plan.rank} "
            "leading left singular vectors."
        )
    return notes


def _group_name(parameter: str, by: str) -> str:
    if by == "model":
        return "model"
    if by == "module":
        return module_of(parameter)
    layer = layer_of(parameter)
    return "outside the layers" if layer is None else f"{stack(parameter)}.{layer}"
