"""The engine of surveys: opens models, measures weight by weight, adds up by module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count

import xarray as xr

from alliage.checkpoints.names import layer_of, stack_of
from alliage.errors import AlliageError, Problem, UsageError, nearest
from alliage.geometry.surveying.gathering import Contribution, datasets
from alliage.geometry.surveying.measuring import Request, measure
from alliage.geometry.surveying.metrics import METRICS
from alliage.geometry.surveying.notes import notes_on_values
from alliage.geometry.surveying.opening import Ref, open_vectors
from alliage.geometry.surveying.pieces import Piece, with_factors
from alliage.geometry.surveying.selection import (
    check_vectors,
    parse_modules,
    pieces,
)
from alliage.geometry.surveying.surveys import Survey
from alliage.threads import one_torch_thread
from alliage.vectors import Vector

OnEvent = Callable[[str, int, int], None]

DEFAULT_METRICS = ("l2", "cosine", "geodesic")
DEFAULT_RANK = 16
GROUPINGS = ("module", "layer", "model")
SIDES = ("left", "right")
OBJECTS = ("update", "A", "B")


def compare(
    base: Ref,
    models: Sequence[Ref] | Mapping[str, Ref],
    metrics: Sequence[str] = DEFAULT_METRICS,
    by: str = "module",
    *,
    modules: str | Sequence[str] | None = None,
    last_layers: int | None = None,
    rank: int | None = None,
    energy: float | None = None,
    side: str | None = None,
    of: str = "update",
    spectra: bool = False,
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
        energy: the share of dense updates that their directions hold.
        side: of metrics of angles.
        of: "update", "A" or "B".
        spectra: whether to keep singular values.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: a wrong argument, or a reference that means nothing.
        AlliageError: models that do not fit the base, or NaN in weights; every problem.
    """
    plan = _Plan.checked(metrics, by, modules, last_layers, rank, energy, side, of, spectra)
    return _run(plan, open_vectors(base, models), on_event)


def survey(
    vectors: Sequence[Vector],
    metrics: Sequence[str] = DEFAULT_METRICS,
    by: str = "module",
    *,
    modules: str | Sequence[str] | None = None,
    last_layers: int | None = None,
    rank: int | None = None,
    energy: float | None = None,
    side: str | None = None,
    of: str = "update",
    spectra: bool = False,
    on_event: OnEvent | None = None,
) -> Survey:
    """Distances between all pairs of task vectors of one base, by module.

    Only parameters that all vectors may change take part. L2, cosine and shares of elements are of
    a module's parameters as one long vector, and so for a layer or the model. All other metrics
    compare matrices; for a layer or the model they are means over its matrices, as in Fosse 2024
    (hal-04622988). Metrics of angles compare images, what updates can add to a module's output, or
    with `side` "right" what they read of its input.

    LoRA updates are compared by their factors, with all their directions. A dense update nearly
    always has full rank, and the image of a square one is then everything: its `rank` leading
    singular directions stand for it, or as many as hold a share `energy`. LoRA updates beside dense
    ones are taken in the same way. Where one update is described in the directions of another, it
    is the whole update that is described, whatever its rank.

    Args:
        vectors: two or more, with different names.
        metrics: of `metrics.METRICS`: "l2", "cosine" (1 − cos), "geodesic", "core_energy", ...
        by: "module", "layer" or "model".
        modules: kinds of modules (`checkpoints.names.KINDS`) as "q,v" or a list; all by default.
            Of projections that hold queries, keys and values together their outputs are taken.
        last_layers: only the last K layers of the stack; what lies outside it is left out too.
        rank: at most so many directions of a dense update, 1 or more; 16 by default.
        energy: instead of a rank, the share of ‖ΔW‖² that the directions hold at least, in (0, 1].
        side: "left", between images, the default; "right", between row spaces.
        of: "update"; "A" or "B" for one factor of LoRA alone, without its scale. Elements of
            factors depend on the basis that training happened to choose; the spaces, B's columns
            and A's rows, do not.
        spectra: whether to keep the models' singular values and what follows from them. Ranks and
            entropies of dense updates are of all singular values, and NaN where the smaller side
            exceeds `EXACT_SIDE`.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: a wrong argument, or vectors that have nothing in common.
        AlliageError: NaN or infinity in weights; every file and tensor that holds some.
    """
    plan = _Plan.checked(metrics, by, modules, last_layers, rank, energy, side, of, spectra)
    return _run(plan, vectors, on_event)


@dataclass(frozen=True)
class _Plan:
    """The arguments of a survey, checked."""

    metrics: tuple[str, ...]
    by: str
    kinds: tuple[str, ...]
    last_layers: int | None
    request: Request

    @classmethod
    def checked(
        cls,
        metrics: Sequence[str],
        by: str,
        modules: str | Sequence[str] | None,
        last_layers: int | None,
        rank: int | None,
        energy: float | None,
        side: str | None,
        of: str,
        spectra: bool,
    ) -> _Plan:
        """Raises UsageError with every problem."""
        problems = [
            Problem(f"metric {metric!r}", "is unknown.", nearest(metric, METRICS))
            for metric in metrics
            if metric not in METRICS
        ]
        if not metrics:
            problems.append(Problem("metrics", "none given.", nearest("", METRICS)))
        for what, word, known in (
            ("by", by, GROUPINGS), ("side", side or "left", SIDES), ("of", of, OBJECTS),
        ):  # fmt: skip
            if word not in known:
                problems.append(Problem(f"{what} {word!r}", "is unknown.", nearest(word, known)))
        for name, value in (("last_layers", last_layers), ("rank", rank)):
            if value is not None and value < 1:
                problems.append(Problem(name, f"must be 1 or more, got {value}."))
        if energy is not None and not 0 < energy <= 1:
            problems.append(Problem("energy", f"must be above 0 and at most 1, got {energy}."))
        if energy is not None and rank is not None:
            problems.append(Problem("rank, energy", "both are given.", "Give one of the two."))
        if of in ("A", "B"):
            problems += _factor_problems(metrics, side, of, spectra)
        kinds = parse_modules(modules, problems)
        if problems:
            raise UsageError(problems)
        names = tuple(dict.fromkeys(metrics))
        needs = {METRICS[name].needs for name in names}
        request = Request(
            frozenset([*needs, "spectra"]) if spectra else frozenset(needs),
            rank or DEFAULT_RANK,
            energy,
            "right" if side == "right" else "left",
            "A" if of == "A" else "B" if of == "B" else "update",
        )
        return cls(names, by, kinds, last_layers, request)


def _factor_problems(
    metrics: Sequence[str], side: str | None, of: str, spectra: bool
) -> list[Problem]:
    known = [name for name, metric in METRICS.items() if metric.of_factors]
    problems = [
        Problem(
            f"metric {name!r}",
            f"is not defined for {of} alone: it describes the whole update.",
            f"Of factors there are {', '.join(known)}.",
        )
        for name in metrics
        if name in METRICS and name not in known
    ]
    if side is not None:
        meets = "rows, in the space of inputs" if of == "A" else "columns, in the space of outputs"
        problems.append(
            Problem(
                f"side {side!r}", f"{of} alone is compared by its {meets}.", "Leave the side out."
            )
        )
    if spectra:
        problems.append(
            Problem("spectra", f"are of whole updates, not of {of} alone.", "Leave them out.")
        )
    return problems


def _run(plan: _Plan, vectors: Sequence[Vector], on_event: OnEvent | None) -> Survey:
    check_vectors(vectors)
    weights, notes = pieces(vectors, plan.kinds, plan.last_layers)
    if plan.request.of != "update":
        weights = _adapted(plan, vectors, weights, notes)
    groups: dict[str, Contribution] = {}
    problems: list[Problem] = []

    def work(piece: Piece) -> Contribution | list[Problem]:
        measured = measure(vectors, piece, plan.request)
        if isinstance(measured, list):
            return measured
        return Contribution.of(measured, plan.metrics)

    with one_torch_thread(), ThreadPoolExecutor(cpu_count()) as pool:
        for done, (piece, found) in enumerate(
            zip(weights, pool.map(work, weights), strict=True), 1
        ):
            if on_event is not None:
                on_event("measuring", done, len(weights))
            if isinstance(found, list):
                problems += found
                continue
            name = _group_name(piece, plan.by)
            groups[name] = groups[name].plus(found) if name in groups else found
    if problems:
        raise AlliageError(list(dict.fromkeys(problems)))
    names = [vector.name for vector in vectors]
    data, null, spectra = datasets(plan.metrics, plan.by, names, groups)
    request = plan.request
    data.attrs = {"by": plan.by, "side": request.side, "of": request.of}
    data.attrs |= {"rank": request.rank} if request.energy is None else {"energy": request.energy}
    notes += notes_on_values(plan.request, plan.by, vectors, weights, groups, spectra)
    asked = "spectra" in plan.request.needs
    return Survey(data, null, tuple(notes), spectra if asked else xr.Dataset())


def _adapted(
    plan: _Plan, vectors: Sequence[Vector], weights: Sequence[Piece], notes: list[str]
) -> list[Piece]:
    """The weights that all vectors have as factors; others are left out and noted.

    Raises:
        UsageError: a vector has no factors, or ranks differ where elements are compared.
    """
    of = plan.request.of
    kept = [piece for piece in weights if len(with_factors(vectors, piece)) == len(vectors)]
    if not kept:
        raise UsageError(
            [
                Problem(vector.name, f"has no factor {of}.", "Compare LoRA adapters, or updates.")
                for vector in vectors
                if not any(with_factors([vector], piece) for piece in weights)
            ]
            or Problem(f"of {of!r}", "no weight has factors in all models.")
        )
    if len(kept) < len(weights):
        notes.append(f"{len(weights) - len(kept)} parameters without factors were left out.")
    if "sums" in plan.request.needs:
        for piece in kept:
            module = piece.parameter.removesuffix(".weight")
            ranks = {vector.name: vector.rank(module) for vector in with_factors(vectors, piece)}
            if len(set(ranks.values())) > 1:
                told = ", ".join(f"{rank} in {name}" for name, rank in ranks.items())
                raise UsageError(
                    Problem(
                        f"{module}: rank",
                        f"is {told}: elements of {of} alone cannot be compared.",
                        "Use metrics of angles, or compare updates.",
                    )
                )
    return kept


def _group_name(piece: Piece, by: str) -> str:
    if by == "model":
        return "model"
    if by == "module":
        return piece.module
    layer = layer_of(piece.parameter)
    return "outside the layers" if layer is None else f"{stack_of(piece.parameter)}.{layer}"
