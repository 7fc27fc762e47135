"""Surveys: how far apart task vectors are, module by module, T_d[i, j, k]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import KINDS, kind_of, layer_of, module_of, parse_kinds
from alliage.errors import AlliageError, Problem, UsageError, nearest
from alliage.geometry.distances import ANGLE_DISTANCES
from alliage.geometry.maps import classical_mds, principal_components
from alliage.geometry.measuring import Measured, measure, with_factors
from alliage.geometry.null import random_angles
from alliage.geometry.pairs import Angles, Sums
from alliage.geometry.task_map import TaskMap
from alliage.vectors import Vector
from alliage.vectors import open as open_vector

Ref = str | Path | Checkpoint
OnEvent = Callable[[str, int, int], None]

METRICS: Mapping[str, str] = {
    "l2": "‖ΔW₁ − ΔW₂‖_F, in units of the weights",
    "cosine": "1 − cos of the angle between ΔW₁ and ΔW₂, from 0 to 2",
} | {name: (distance.__doc__ or "").rstrip(".") for name, distance in ANGLE_DISTANCES.items()}
DEFAULT_METRICS = ("l2", "cosine", "geodesic")
DEFAULT_RANK = 16
GROUPINGS = ("module", "layer", "model")

_MAPS = {"pca": principal_components, "mds": classical_mds}


@dataclass(frozen=True)
class Survey:
    """Distances between task vectors: T_d[i, j, k] for metrics d, models i, j and modules k.

    Attributes:
        data: one variable for each metric with the dimensions (task, other, module), float64,
            symmetric in the first two. Modules carry the coordinates `layer` (−1 outside the stack)
            and `kind`. NaN where a distance is not defined: angles of biases and norms, cosine and
            angles of updates that are zero.
        null: for each metric of angles its mean over random subspaces of the same dimensions, with
            the same dimensions and coordinates: distances at or above it say that nothing is shared.
        notes: what was left out, and why, one sentence each.
    """

    data: xr.Dataset
    null: xr.Dataset
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The models'."""
        return tuple(self.data["task"].values.tolist())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order asked for."""
        return tuple(str(name) for name in self.data.data_vars)

    def __getitem__(self, metric: str) -> xr.DataArray:
        """T_d of one metric, dimensions (task, other, module).

        Raises:
            KeyError: the metric was not measured; with the nearest names.
        """
        if metric not in self.metrics:
            raise KeyError(f"{metric}: not measured here. {nearest(metric, self.metrics)}")
        return self.data[metric]

    def map(self, metric: str, method: str = "pca") -> TaskMap:
        """The models as points in the plane, by their mean distances over modules.

        Args:
            metric: one of `metrics`.
            method: "pca", principal components of the rows of the distance matrix (Fosse 2024,
                hal-04622988), or "mds", classical multidimensional scaling.

        Raises:
            KeyError: the metric was not measured.
            UsageError: an unknown method, or a pair without a distance.
        """
        if method not in _MAPS:
            raise UsageError(Problem(f"method {method!r}", "is unknown.", nearest(method, _MAPS)))
        distances = self[metric].mean("module").to_numpy()
        if np.isnan(distances).any():
            rows = np.isnan(distances).any(axis=1)
            names = ", ".join(name for name, row in zip(self.names, rows, strict=True) if row)
            raise UsageError(
                Problem(
                    f"{metric} map",
                    f"some distances are not defined, among {names}.",
                    "Leave out models that do not differ from the base.",
                )
            )
        coordinates, explained = _MAPS[method](distances)
        return TaskMap(self.names, coordinates, explained, metric, method)

    def to_rows(self, metrics: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Every defined distance of every pair once, as rows of the results table "distances"."""
        modules = self.data["module"].values.tolist()
        layers, kinds = self.data["layer"].values.tolist(), self.data["kind"].values.tolist()
        for metric in metrics or self.metrics:
            values = self[metric].to_numpy()
            for i, j in zip(*np.triu_indices(len(self.names), 1), strict=True):
                for k, value in enumerate(values[i, j].tolist()):
                    if not math.isnan(value):
                        yield {
                            "metric": metric,
                            "first": self.names[i],
                            "second": self.names[j],
                            "module": modules[k],
                            "layer": layers[k],
                            "kind": kinds[k],
                            "value": value,
                        }

    def findings(self) -> list[str]:
        """What stands out, one line for each metric: nearest and farthest pair, and chance."""
        return [_finding(self, metric) for metric in self.metrics]

    def __repr__(self) -> str:
        return (
            f"<Survey of {len(self.names)} models, {self.data.sizes['module']} modules: "
            f"{', '.join(self.metrics)}>"
        )

    def _repr_html_(self) -> str:
        parts = [f"<p>{_escape(repr(self)[1:-1])}. Means over modules.</p>"]
        for metric in self.metrics:
            frame = self[metric].mean("module").to_pandas()
            frame.index.name = frame.columns.name = None
            table = frame.to_html(float_format=lambda value: f"{value:.4g}", na_rep="–", border=0)
            parts.append(f"<p><b>{metric}</b>: {_escape(METRICS[metric])}</p>{table}")
        parts += [f"<p>{_escape(line)}</p>" for line in (*self.findings(), *self.notes)]
        return "\n".join(parts)


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
    origin = open_checkpoint(base)
    named = isinstance(models, Mapping)
    entries = list(models.items()) if named else [(None, ref) for ref in models]
    vectors: list[Vector] = []
    errors: list[AlliageError] = []
    for name, ref in entries:
        try:
            vectors.append(open_vector(ref, origin, name=name))
        except AlliageError as error:
            errors.append(error)
    if errors:
        usage = all(isinstance(error, UsageError) for error in errors)
        problems = [problem for error in errors for problem in error.problems]
        raise UsageError(problems) if usage else AlliageError(problems)
    counts = Counter(vector.name for vector in vectors)
    for vector, (_, ref) in zip(vectors, entries, strict=True):
        if counts[vector.name] > 1:  # folders of one name in different places
            vector.named(ref.ref if isinstance(ref, Checkpoint) else str(ref))
    return _run(plan, vectors, on_event)


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
        kinds: tuple[str, ...] = ()
        words = modules.split(",") if isinstance(modules, str) else modules or ()
        for word in words:
            try:
                kinds += parse_kinds(word)
            except KeyError:
                kind = word.strip()
                problems.append(
                    Problem(f"kind of module {kind!r}", "is unknown.", nearest(kind, KINDS))
                )
        if problems:
            raise UsageError(problems)
        return cls(tuple(dict.fromkeys(metrics)), by, kinds, last_layers, rank)


class _Group:
    """What the parameters of one module, layer or model add up to."""

    def __init__(self, models: int, metrics: Sequence[str]) -> None:
        self.sums = Sums.zeros(models)
        # Over matrices: values, means and variances of the null, and how many are defined.
        self.totals = {metric: torch.zeros(4, models, models).double() for metric in metrics}

    def add(self, measured: Measured) -> None:
        self.sums = self.sums.plus(measured.sums)
        if measured.angles is None:
            return
        for metric, total in self.totals.items():
            values = ANGLE_DISTANCES[metric](measured.angles.values)
            row = torch.stack([values, *_null(metric, measured.angles), torch.ones_like(values)])
            total += row.masked_fill(values.isnan(), 0.0)

    def values(self, metric: str) -> Tensor:
        """Distances [n, n]."""
        if metric == "l2":
            return self.sums.l2()
        if metric == "cosine":
            return self.sums.cosine_distance()
        values, _, _, count = self.totals[metric]
        return values / count

    def null(self, metric: str) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [n, n] over random subspaces."""
        _, means, variances, count = self.totals[metric]
        return means / count, variances.sqrt() / count


def _null(metric: str, angles: Angles) -> tuple[Tensor, Tensor]:
    """Mean and variance [n, n] of a metric over random subspaces; a space equals itself."""
    n = len(angles.ranks)
    mean, variance = torch.zeros(2, n, n, dtype=torch.float64)
    for i, j in itertools.combinations(range(n), 2):
        r1, r2 = sorted((angles.ranks[i], angles.ranks[j]))
        if r1:
            draws = ANGLE_DISTANCES[metric](random_angles(angles.d, r1, r2))
            mean[i, j] = mean[j, i] = draws.mean()
            variance[i, j] = variance[j, i] = draws.var()
    return mean, variance


def _run(plan: _Plan, vectors: Sequence[Vector], on_event: OnEvent | None) -> Survey:
    _check_vectors(vectors)
    parameters, notes = _select(plan, vectors)
    groups: dict[str, _Group] = {}
    problems: list[Problem] = []
    angles = bool(plan.angle_metrics)

    def work(parameter: str) -> Measured | list[Problem]:
        return measure(vectors, parameter, rank=plan.rank, angles=angles)

    with _one_torch_thread(), ThreadPoolExecutor(cpu_count()) as pool:
        for done, (parameter, found) in enumerate(
            zip(parameters, pool.map(work, parameters), strict=True), 1
        ):
            if on_event is not None:
                on_event("measuring", done, len(parameters))
            if isinstance(found, list):
                problems += found
                continue
            group = _group_name(parameter, plan.by)
            groups.setdefault(group, _Group(len(vectors), plan.angle_metrics)).add(found)
    if problems:
        raise AlliageError(problems)
    notes += _notes_on_values(plan, vectors, parameters, groups)
    return Survey(*_datasets(plan, [vector.name for vector in vectors], groups), tuple(notes))


def _datasets(
    plan: _Plan, names: Sequence[str], groups: Mapping[str, _Group]
) -> tuple[xr.Dataset, xr.Dataset]:
    modules = list(groups)
    by_model = plan.by == "model"
    layers = [-1 if by_model or (i := layer_of(module)) is None else i for module in modules]
    kinds = [kind_of(module) if plan.by == "module" else "" for module in modules]
    coordinates = {
        "task": list(names),
        "other": list(names),
        "module": modules,
        "layer": ("module", layers),
        "kind": ("module", kinds),
    }

    def dataset(values: Mapping[str, list[Tensor]]) -> xr.Dataset:
        return xr.Dataset(
            {
                name: (("task", "other", "module"), torch.stack(each, dim=-1).numpy())
                for name, each in values.items()
            },
            coordinates,
        )

    data = dataset(
        {metric: [group.values(metric) for group in groups.values()] for metric in plan.metrics}
    )
    null = {}
    for metric in plan.angle_metrics:
        means, deviations = zip(*(group.null(metric) for group in groups.values()), strict=True)
        null |= {metric: list(means), f"{metric}_sd": list(deviations)}
    for metric in plan.metrics:
        data[metric].attrs["long_name"] = METRICS[metric]
    return data, dataset(null)


def _check_vectors(vectors: Sequence[Vector]) -> None:
    problems = []
    if len(vectors) < 2:
        problems.append(
            Problem("models", f"expected two or more, got {len(vectors)}.", "Give another model.")
        )
    counts = Counter(vector.name for vector in vectors)
    problems += [
        Problem(name, f"stands for {count} of the models.", "Give each a name of its own.")
        for name, count in counts.items()
        if count > 1
    ]
    shapes = vectors[0].shapes if vectors else {}
    problems += [
        Problem(
            f"{vector.name}: {name}",
            f"has the shape {list(shape)}, expected {list(shapes[name])} as in {vectors[0].name}.",
            "Only models of one base can be compared.",
        )
        for vector in vectors[1:]
        for name, shape in vector.shapes.items()
        if shapes.get(name, shape) != shape
    ]
    if problems:
        raise UsageError(problems)


def _select(plan: _Plan, vectors: Sequence[Vector]) -> tuple[list[str], list[str]]:
    """The parameters to measure, in natural order, and notes on what was left out."""
    everywhere = set.intersection(*(set(vector.shapes) for vector in vectors))
    anywhere = {name for vector in vectors for name in vector.shapes}
    if not everywhere:
        raise UsageError(
            [
                Problem(
                    vector.name,
                    f"changes no parameter that all others change too; its own: "
                    f"{_some(sorted(vector.shapes))}.",
                    "Compare models that were tuned in the same modules.",
                )
                for vector in vectors
            ]
        )
    notes = []
    if left_out := sorted(anywhere - everywhere):
        notes.append(
            f"{len(left_out)} of {len(anywhere)} parameters are not tuned in all models and were "
            f"left out: {_some(left_out)}."
        )
    chosen = everywhere
    if plan.kinds:
        found = {kind_of(name) for name in chosen}
        if problems := [
            Problem(f"kind of module {kind!r}", "is in none of them.", f"Found: {_some(found)}.")
            for kind in plan.kinds
            if kind not in found
        ]:
            raise UsageError(problems)
        chosen = {name for name in chosen if kind_of(name) in plan.kinds}
    if plan.last_layers is not None:
        base = vectors[0].base
        depths = _depths(base.specs() if base is not None else anywhere)
        if plan.last_layers > max(depths.values(), default=0):
            found = max(depths.values(), default=0)
            raise UsageError(
                Problem("last_layers", f"is {plan.last_layers}, but the model has {found} layers.")
            )
        chosen = {
            name
            for name in chosen
            if (layer := layer_of(name)) is not None
            and layer >= depths[_stack(name)] - plan.last_layers
        }
        if not chosen:
            raise UsageError(
                Problem(
                    f"the last {plan.last_layers} layers",
                    "hold no parameter that all models change.",
                    "Take more layers, or other modules.",
                )
            )
    return sorted(chosen, key=_natural), notes


def _notes_on_values(
    plan: _Plan, vectors: Sequence[Vector], parameters: Sequence[str], groups: Mapping[str, _Group]
) -> list[str]:
    notes = []
    for index, vector in enumerate(vectors):
        same = [name for name, group in groups.items() if group.sums.inner[index, index] == 0]
        if same:
            notes.append(
                f"{vector.name} equals the base in {len(same)} of {len(groups)} {plan.by}s, where "
                f"cosine and angles are not defined: {_some(same)}."
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
    return "outside the layers" if layer is None else f"{_stack(parameter)}.{layer}"


def _stack(name: str) -> str:
    """The stack of layers that a parameter belongs to: "encoder.layer", "decoder.block"."""
    parts = name.split(".")
    last = next(i for i in range(len(parts)) if layer_of(".".join(parts[: i + 1])) is not None)
    return ".".join(parts[:last])


def _depths(names: Iterable[str]) -> dict[str, int]:
    """How many layers each stack has."""
    depths: dict[str, int] = {}
    for name in names:
        if (layer := layer_of(name)) is not None:
            stack = _stack(name)
            depths[stack] = max(depths.get(stack, 0), layer + 1)
    return depths


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Modules are the parallelism; torch's own threads beside them would only compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
