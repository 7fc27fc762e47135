"""The engine of interference: opens models, finds thresholds, counts, and names what it found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from os import cpu_count

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from alliage.checkpoints.names import kind_of, layer_of
from alliage.errors import Problem, UsageError
from alliage.geometry.interference.counting import SignCounts, choose_subsets
from alliage.geometry.interference.result import Interference
from alliage.geometry.interference.steps import AGREEMENTS, STEPS
from alliage.geometry.interference.streaming import Counts, Reader, count, find_thresholds
from alliage.geometry.interference.words import percent
from alliage.geometry.surveying.opening import Ref, open_vectors
from alliage.geometry.surveying.selection import check_vectors, parse_modules, select
from alliage.threads import one_torch_thread
from alliage.vectors import ScalingVector, Vector
from alliage.vectors.scaling import ScaleOffsets

OnEvent = Callable[[str, int, int], None]

SHARES = tuple(tenths / 10 for tenths in range(1, 11))
MOST_SUBSETS = 10  # of each size, as in the paper
_PAIRED = ("both", "opposed")
_MORE_THAN_ASKED = 1.05  # times the share asked for, from where a note says so


def interference(
    base: Ref,
    models: Sequence[Ref] | Mapping[str, Ref],
    top_k: float = 0.2,
    *,
    modules: str | Sequence[str] | None = None,
    last_layers: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    on_event: OnEvent | None = None,
) -> Interference:
    """Open models tuned from one base and count where they interfere.

    Args:
        base: the common ancestor: a folder, a weight file, a hub id or an open checkpoint.
        models: full models and adapters, or names with their models.
        top_k: as in `count_interference`; so are the others.
        modules: kinds of modules.
        last_layers: K, the last layers only.
        seed: of the subsets.
        threads: workers.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: a wrong argument, or a reference that means nothing.
        AlliageError: models that do not fit the base, or NaN in weights; every problem.
    """
    kinds = _checked(top_k, modules, last_layers, seed, threads)
    vectors = open_vectors(base, models)
    return _run(vectors, top_k, kinds, last_layers, seed, threads, on_event)


def count_interference(
    vectors: Sequence[Vector],
    top_k: float = 0.2,
    *,
    modules: str | Sequence[str] | None = None,
    last_layers: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    on_event: OnEvent | None = None,
) -> Interference:
    """Interference between task vectors of one base, as in TIES-Merging (arXiv:2306.01708).

    Every vector is trimmed to the share K of its entries with the largest magnitudes, for K from
    10 % to 100 % in steps of 10 % and for `top_k`. The threshold is the paper's, of the vector as a
    whole, and exact: with entries equal to it, more stay than asked for. Counted is then, by
    module, which entries models keep and with which sign; what any two of them keep; at `top_k`
    also how the number of models matters, and what each step of a merge does to magnitudes.

    Files are streamed in constant memory: once for the thresholds, again where a sample misled
    their search, and once for the counts. What comes out does not depend on threads.

    Only parameters that all vectors may change take part, and only they count in thresholds. LoRA
    updates are taken as ΔW, formed block by block. (IA)3 vectors among themselves are taken as in
    the paper, l − 1 of every learned scale; beside others as (l − 1)∘W.

    Args:
        vectors: two or more, with different names.
        top_k: K, the share of entries that count as influential, in (0, 1].
        modules: kinds of modules (`checkpoints.names.KINDS`) as "q,v" or a list; all by default.
        last_layers: only the last K layers of the stack; what lies outside it is left out too.
        seed: of the subsets of models, where there are more than ten of a size.
        threads: workers; all cores by default.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: a wrong argument, or vectors that have nothing in common.
        AlliageError: NaN or infinity in weights; every file and tensor that was seen to hold some.
    """
    kinds = _checked(top_k, modules, last_layers, seed, threads)
    return _run(vectors, top_k, kinds, last_layers, seed, threads, on_event)


def _checked(
    top_k: float,
    modules: str | Sequence[str] | None,
    last_layers: int | None,
    seed: int,
    threads: int | None,
) -> tuple[str, ...]:
    """The kinds of modules; UsageError with every problem."""
    problems = []
    if isinstance(top_k, bool):
        problems.append(Problem("top_k", f"must be a share such as 0.2, got {top_k!r}."))
    elif not 0 < top_k <= 1:
        fix = "20 % are 0.2." if 1 < top_k <= 100 else ""
        problems.append(Problem("top_k", f"must be above 0 and at most 1, got {top_k:g}.", fix))
    for name, value, least in (
        ("last_layers", last_layers, 1), ("seed", seed, 0), ("threads", threads, 1)
    ):  # fmt: skip
        if value is not None and value < least:
            problems.append(Problem(name, f"must be {least} or more, got {value}."))
    kinds = parse_modules(modules, problems)
    if problems:
        raise UsageError(problems)
    return kinds


def _run(
    vectors: Sequence[Vector],
    top_k: float,
    kinds: Sequence[str],
    last_layers: int | None,
    seed: int,
    threads: int | None,
    on_event: OnEvent | None,
) -> Interference:
    notes = []
    scalings = [vector for vector in vectors if isinstance(vector, ScalingVector)]
    if vectors and len(scalings) == len(vectors):
        vectors = [ScaleOffsets(vector) for vector in scalings]
        notes.append("(IA)3 vectors: what is counted are the learned scales, l − 1.")
    check_vectors(vectors)
    parameters, left_out = select(vectors, kinds, last_layers)
    reader = Reader(vectors, parameters, threads or cpu_count() or 1)
    shares = sorted({*SHARES, top_k})
    subsets = choose_subsets(len(vectors), MOST_SUBSETS, seed)
    notify = on_event or (lambda *_: None)
    with one_torch_thread():
        thresholds = find_thresholds(reader, shares, notify)
        found = count(reader, thresholds, shares.index(top_k), subsets, notify)
    names = [vector.name for vector in vectors]
    data = _dataset(names, shares, top_k, thresholds, subsets, found)
    return Interference(data, top_k, (*notes, *left_out, *_notes_on_values(data, top_k)))


def _dataset(
    names: Sequence[str],
    shares: Sequence[float],
    top_k: float,
    thresholds: NDArray[np.float32],
    subsets: NDArray[np.bool_],
    found: Counts,
) -> xr.Dataset:
    modules = list(found.modules)
    at = shares.index(top_k)
    by_share = [
        SignCounts(*map(np.stack, zip(*(rows[place] for rows in found.modules.values()),
                                      strict=True)))
        for place in range(len(shares))
    ]  # fmt: skip

    def stacked(field: str) -> NDArray[np.int64]:
        return np.stack([getattr(counts, field) for counts in by_share])

    def of_all(field: str) -> NDArray[np.float64]:  # the last subset is of all models
        return np.stack([getattr(counts, field)[:, -1] for counts in by_share])

    def of_subsets(field: str) -> NDArray[np.float64]:
        return np.asarray(getattr(by_share[at], field).sum(axis=0))

    by_module = ("top_k", "module")
    layers = [layer_of(module) for module in modules]
    return xr.Dataset(
        {
            "parameters": ("module", by_share[0].parameters),
            "both": ((*by_module, "task", "other"), stacked("both")),
            "opposed": ((*by_module, "task", "other"), stacked("opposed")),
            "influential": ((*by_module, "keeping"), stacked("influential")),
            "shared": (by_module, of_all("shared")),
            "conflicting": (by_module, of_all("conflicting")),
            "expected": (by_module, of_all("expected")),
            "subset_shared": ("subset", of_subsets("shared")),
            "subset_conflicting": ("subset", of_subsets("conflicting")),
            "subset_expected": ("subset", of_subsets("expected")),
            "members": (("subset", "task"), subsets),
            "threshold": (("top_k", "task"), thresholds),
            "magnitude_count": (("keeping", "agreement"), found.magnitudes.counts),
            "magnitude_total": (("step", "keeping", "agreement"), found.magnitudes.totals),
            "magnitude_squares": (("step", "keeping", "agreement"), found.magnitudes.squares),
        },
        {
            "task": list(names),
            "other": list(names),
            "top_k": list(shares),
            "module": modules,
            "layer": ("module", [-1 if layer is None else layer for layer in layers]),
            "kind": ("module", [kind_of(module) for module in modules]),
            "keeping": range(len(names) + 1),
            "number": ("subset", subsets.sum(axis=1)),
            "step": list(STEPS),
            "agreement": list(AGREEMENTS),
        },
    )


def _notes_on_values(data: xr.Dataset, top_k: float) -> list[str]:
    notes = []
    numel = int(data["parameters"].sum())
    kept = data["both"].sel(top_k=[top_k, 1.0]).sum("module")
    for number, name in enumerate(data["task"].values.tolist()):
        at, changed = (int(kept[place, number, number]) for place in range(2))
        if not changed:
            notes.append(
                f"{name} equals the base: it keeps nothing, and conflicts with it are undefined."
            )
        elif at > _MORE_THAN_ASKED * top_k * numel and at - top_k * numel > 1:
            notes.append(
                f"{name} keeps {percent(at / numel)}, not {percent(top_k)}: that many entries are "
                "as large as the threshold, or larger."
            )
        elif at < top_k * numel - 1:
            notes.append(f"{name} changes only {percent(at / numel)} of the parameters, less than "
                         f"{percent(top_k)}.")  # fmt: skip
    names = data["task"].values.tolist()
    both, opposed = (data[name].sel(top_k=1.0).sum("module").to_numpy() for name in _PAIRED)
    for i, j in itertools.combinations(range(len(names)), 2):
        if not opposed[i, j] and 0 < both[i, j] == both[i, i] == both[j, j]:
            notes.append(f"{names[i]} and {names[j]} have the same signs everywhere.")
    return notes
