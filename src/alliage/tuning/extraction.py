"""A LoRA adapter out of a tuned model: each difference of weights cut to a low rank."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from alliage import vectors
from alliage.checkpoints import Checkpoint, dtypes, provenance
from alliage.checkpoints.card import model_card
from alliage.checkpoints.labels import config_labels
from alliage.checkpoints.names import KINDS, parse_kinds
from alliage.checkpoints.reference import ADAPTER_CONFIG
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import (
    NEVER_SHARD,
    OutputFolder,
    TensorWriter,
    plan_layout,
    refuse_existing,
)
from alliage.errors import AlliageError, Problem, UsageError, nearest
from alliage.geometry.low_rank import low_rank_distances, low_rank_svd
from alliage.geometry.truncation import (
    Truncation,
    fewest_directions,
    squared_norm,
    truncate_to_energy,
    truncate_to_rank,
)
from alliage.threads import one_torch_thread
from alliage.tuning.adapter_form import (
    AdapterForm,
    Target,
    form_of_adapter,
    form_of_model,
    peft_tensors,
    rank_settings,
)
from alliage.vectors import LowRankVector, MaskedVector, ScalingVector, TaskVector

OnEvent = Callable[[str, int, int], None]

_BLOCK = 2**20  # elements in float64 at a time
_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class ExtractedModule:
    """One module of the adapter.

    Attributes:
        parameter: the base's name of the weight.
        module: its module in memory, as PEFT names it.
        shape: of the weight as stored.
        rank: of the update.
        norm: ‖ΔW‖ of the whole difference.
        error: ‖ΔW − B·A‖ of what was written, rounded to its type.
    """

    parameter: str
    module: str
    shape: tuple[int, ...]
    rank: int
    norm: float
    error: float

    @property
    def kept(self) -> float:
        """The share of the difference's energy, ‖ΔW_r‖²/‖ΔW‖², in [0, 1]."""
        return 1 - (self.error / self.norm) ** 2


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A parameter whose difference is not in the adapter.

    Attributes:
        parameter: the base's name.
        reason: why.
        norm: ‖ΔW‖ of the difference, above zero.
    """

    parameter: str
    reason: str
    norm: float


@dataclass(frozen=True, slots=True)
class ExtractionRecord:
    """What an extraction wrote and what it lost.

    Attributes:
        out: the adapter's folder.
        seconds: of the whole run.
        bytes_written: of weights.
        modules: of the adapter.
        left_out: what the adapter lacks of the difference.
        saved_whole: tensors saved beside the factors as they are: task heads.
        energy: ‖τ‖² of the whole difference from the base.
        kept: the share of it that the adapter holds, in [0, 1].
    """

    out: Path
    seconds: float
    bytes_written: int
    modules: tuple[ExtractedModule, ...]
    left_out: tuple[LeftOut, ...]
    saved_whole: tuple[str, ...]
    energy: float
    kept: float


def extract(
    tuned: str | Path,
    *,
    out: str | Path,
    base: str | Path | None = None,
    rank: int | None = None,
    energy: float | None = None,
    modules: str | None = None,
    dtype: str = "float32",
    on_event: OnEvent | None = None,
) -> ExtractionRecord:
    """Write the difference of a tuned model from its base as a LoRA adapter in PEFT's format.

    Each matrix is cut to the rank that loses least (Eckart and Young 1936), one at a time: a dense
    difference by `geometry.truncation`, an adapter by the exact SVD of its factors. lora_alpha is
    the rank, so that ΔW = B·A. Task heads are saved whole; biases, norms and tied embeddings are
    what LoRA cannot hold: they are left out and reported.

    Args:
        tuned: a full model, or a LoRA adapter to be cut down.
        out: the adapter's folder.
        base: what it was tuned from; an adapter's by default the one that its settings name.
        rank: of each module, or less where the matrix has less.
        energy: instead of a rank, the share of each module's energy to keep, in (0, 1].
        modules: only these kinds, "q,v" or "query,mlp"; by default all that LoRA can hold.
        dtype: of the factors: float32, float16 or bfloat16.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: an argument is wrong, or `out` exists or is a URL.
        AlliageError: the two do not fit together, hold NaN or infinity, do not differ in any
            matrix, or have factors too large for `dtype`; all misfits.
    """
    kinds = _check(rank, energy, modules, dtype)
    out = local_destination(out)
    refuse_existing(out)
    started = time.perf_counter()
    notify = on_event or (lambda *_: None)
    vector = vectors.open(tuned, base)
    if isinstance(vector, MaskedVector):
        what = "is the masks of a task, neither a model nor a LoRA adapter."
        raise UsageError(Problem(str(tuned), what, "Rebuild its model first: `alliage apply`."))
    if isinstance(vector, ScalingVector):
        what = "is an (IA)3 adapter: its update has full rank."
        raise UsageError(Problem(vector.adapter.ref, what, "`alliage apply` it first."))
    form = (
        form_of_model(vector, kinds)
        if isinstance(vector, TaskVector)
        else form_of_adapter(vector, kinds)
    )
    recipe: dict[str, Any] = {"tuned": str(tuned), "base": vector.base.ref}
    recipe |= {"rank": rank, "energy": energy, "modules": modules, "dtype": dtype}
    with OutputFolder(out) as folder, one_torch_thread():
        with tempfile.TemporaryFile(dir=folder.staging) as spool:
            problems: list[Problem] = []
            done, tensors = _factorise(vector, form, rank, energy, dtype, spool, notify, problems)
            energies = _energies(vector, [*form.replaced, *form.left], notify, problems)
            if not problems and not done:
                what = "does not differ from its base in any matrix asked for."
                problems = [Problem(form.tuned.ref, what, "There is no adapter to write.")]
            if problems:
                raise AlliageError(problems)
            nbytes = _write(folder, form, tensors, spool)
        left = [LeftOut(n, form.left[n], math.sqrt(energies[n])) for n in form.left if energies[n]]
        total = math.fsum([*energies.values(), *(module.norm**2 for module in done)])
        lost = math.fsum([*(one.norm**2 for one in left), *(one.error**2 for one in done)])
        made = ExtractionRecord(
            out, time.perf_counter() - started, nbytes, tuple(done), tuple(left),
            tuple(form.whole), total, 1 - lost / total,
        )  # fmt: skip
        folder.add_json(
            ADAPTER_CONFIG, form.settings | rank_settings({one.module: one.rank for one in done})
        )
        folder.add_companions(form.tuned)
        _write_provenance(folder, form.tuned, vector.base, recipe, made)
    return replace(made, seconds=time.perf_counter() - started)


def _check(
    rank: int | None, energy: float | None, modules: str | None, dtype: str
) -> tuple[str, ...] | None:
    """The kinds of modules that were asked for; all problems at once."""
    problems = []
    if (rank is None) == (energy is None):
        problems.append(Problem("rank, energy", "expected one of the two."))
    if rank is not None and rank < 1:
        problems.append(Problem("rank", f"must be at least 1, got {rank}."))
    if energy is not None and not 0 < energy <= 1:
        problems.append(Problem("energy", f"must be in (0, 1], got {energy:g}."))
    if dtype not in _DTYPES:
        problems.append(Problem("dtype", f"no type {dtype!r}.", nearest(dtype, _DTYPES)))
    kinds = None
    if modules is not None:
        try:
            kinds = parse_kinds(modules)
        except KeyError as error:
            known = nearest(error.args[0], [*KINDS, "q", "k", "v", "o"])
            problems.append(Problem("modules", f"no kind {error.args[0]!r}.", known))
        if kinds == ():
            problems.append(
                Problem("modules", f"{modules!r} names no kind.", "Give q,v or others.")
            )
    if problems:
        raise UsageError(problems)
    return kinds


def _factorise(
    vector: TaskVector | LowRankVector,
    form: AdapterForm,
    rank: int | None,
    energy: float | None,
    dtype: str,
    spool: IO[bytes],
    notify: OnEvent,
    problems: list[Problem],
) -> tuple[list[ExtractedModule], list[tuple[str, str, tuple[int, ...]]]]:
    """Append each module's factors to `spool`: their places depend on ranks not yet known.

    Returns:
        the modules, and name, dtype code and shape of each tensor in the spool.
    """
    done, tensors = [], []
    code = str(dtypes.code_of(dtype))
    for number, target in enumerate(form.targets, start=1):
        found = _factors(vector, target, rank, energy, dtypes.torch_dtype(code))
        if found is None:
            source = vector.source(target.parameter)
            problems.append(Problem(f"{source.file}: {source.name}", "holds NaN or infinity."))
        elif not (found.B.isfinite().all() and found.A.isfinite().all()):
            what = f"its factors do not fit into {dtype}: they become infinite."
            problems.append(Problem(target.module, what, "Choose float32 or bfloat16."))
        elif found.B.shape[1]:
            for name, tensor in peft_tensors(target, found.B, found.A):
                tensors.append((name, code, tuple(tensor.shape)))
                raw = tensor.contiguous().reshape(-1).view(torch.uint8)
                spool.write(raw.numpy().data.cast("B"))
            done.append(
                ExtractedModule(
                    target.parameter, target.module, tuple(vector.shapes[target.parameter]),
                    found.B.shape[1], found.norm, found.error,
                )
            )  # fmt: skip
        notify("extracting", number, len(form.targets))
    return done, tensors


class _Found(NamedTuple):
    B: Tensor
    A: Tensor
    norm: float
    error: float


def _factors(
    vector: TaskVector | LowRankVector,
    target: Target,
    rank: int | None,
    energy: float | None,
    dtype: torch.dtype,
) -> _Found | None:
    """One module's B [out, r] and A [r, in] in their final type; None where it is not finite."""
    if isinstance(vector, LowRankVector):
        B, A, scale = vector.factors(target.parameter.removesuffix(".weight"))
        if not (B.isfinite().all() and A.isfinite().all()):
            return None
        found = Truncation(*low_rank_svd(B, A, scale))
        norm = float(found.S.norm())
        count = rank if rank is not None else fewest_directions(found.S, energy or 1.0)
        new_B, new_A = _balanced(found, count, dtype)
        error = norm and low_rank_distances(B, A, new_B, new_A, scale).frobenius
        return _Found(new_B, new_A, norm, error)
    delta = vector.delta(target.parameter)
    if not delta.isfinite().all():
        return None
    turned = target.kind in ("conv1d", "embedding")  # stored as [in, out]
    matrix = delta.mT if turned else delta.flatten(1)
    seed = int.from_bytes(hashlib.sha256(target.parameter.encode()).digest()[:7])
    if rank is not None:
        found = truncate_to_rank(matrix, rank, seed=seed)
    else:
        found = truncate_to_energy(matrix, energy or 1.0, seed=seed)
    new_B, new_A = _balanced(found, len(found.S), dtype)
    return _Found(new_B, new_A, math.sqrt(squared_norm(matrix)), _distance(matrix, new_B, new_A))


def _balanced(found: Truncation, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """B = U·√S and A = √S·Vᵀ: neither is so small that float16 loses its digits."""
    root = found.S[:count].sqrt()
    return (found.U[:, :count] * root).to(dtype), (found.V[:, :count] * root).mT.to(dtype)


def _distance(matrix: Tensor, B: Tensor, A: Tensor) -> float:
    """‖M − B·A‖, some rows at a time."""
    rows = max(1, _BLOCK // matrix.shape[1])
    parts = zip(torch.split(matrix, rows), torch.split(B, rows), strict=True)
    A = A.double()
    return math.sqrt(sum(float((m.double() - b.double() @ A).square().sum()) for m, b in parts))


def _energies(
    vector: TaskVector | LowRankVector,
    parameters: Sequence[str],
    notify: OnEvent,
    problems: list[Problem],
) -> dict[str, float]:
    """‖ΔW‖² of each parameter, by blocks; those that hold NaN go to `problems`."""
    energies = {}
    for number, name in enumerate(parameters, start=1):
        numel = math.prod(vector.shapes[name])
        blocks = ((at, min(at + _BLOCK, numel)) for at in range(0, numel, _BLOCK))
        energies[name] = math.fsum(squared_norm(vector.block(name, *block)) for block in blocks)
        if not math.isfinite(energies[name]):
            source = vector.source(name)
            problems.append(Problem(f"{source.file}: {source.name}", "holds NaN or infinity."))
        notify("measuring the rest", number, len(parameters))
    return energies


def _write(
    folder: OutputFolder,
    form: AdapterForm,
    tensors: Sequence[tuple[str, str, tuple[int, ...]]],
    spool: IO[bytes],
) -> int:
    """One adapter_model.safetensors, as PEFT reads it; its bytes."""
    specs = form.tuned.specs()
    whole = [(name, specs[s].dtype, specs[s].shape) for name, s in form.whole.items()]
    layout = plan_layout([*tensors, *whole], stem="adapter_model", max_shard_bytes=NEVER_SHARD)
    spool.seek(0)
    with TensorWriter(folder.staging, layout) as writer:
        for name, code, shape in tensors:
            content = spool.read(math.prod(shape) * dtypes.itemsize(code))
            writer.write(name, 0, memoryview(content))
        for name, stored in form.whole.items():
            writer.copy(name, form.tuned, stored)
    return layout.nbytes


def _write_provenance(
    folder: OutputFolder,
    tuned: Checkpoint,
    base: Checkpoint,
    recipe: Mapping[str, Any],
    made: ExtractionRecord,
) -> None:
    noted = (provenance.read(tuned.folder) if tuned.folder is not None else None) or {}
    facts = {key: noted.get(key) for key in ("task", "kind", "labels")}
    facts["labels"] = facts["labels"] or config_labels(tuned.config)
    inputs = [provenance.describe_input(r, c) for r, c in (("base", base), ("tuned", tuned))]
    record = provenance.describe(
        "extract", recipe, inputs, folder.staging,
        **{key: fact for key, fact in facts.items() if fact}, kept=made.kept,
        ranks={one.module: one.rank for one in made.modules},
    )  # fmt: skip
    folder.add_json(provenance.FILE, record)
    summary = (
        f"A LoRA adapter extracted from `{tuned.name}`: it holds {made.kept:.1%} of the energy of "
        f"the difference from its base, in {len(made.modules)} modules."
    )
    folder.add_text("README.md", model_card(folder.out.name, summary, record))
