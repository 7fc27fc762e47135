"""From a recipe to a plan: every problem at once, before the first tensor is read."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

from alliage.checkpoints import Checkpoint, upload
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import is_task_head, layer_count
from alliage.checkpoints.remote import RemotePath
from alliage.checkpoints.writer import MAX_SHARD_BYTES, refuse_existing
from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.planning.factors import plan_factors
from alliage.merging.planning.merged import MergedModule, MergedScales
from alliage.merging.planning.models import (
    GIVE_BASE,
    make_names_unique,
    name_one_base,
    open_base,
    open_model,
)
from alliage.merging.planning.outputs import finish_layout, lay_out, set_heads_apart
from alliage.merging.planning.plan import DEFAULT_MEMORY, MergedTensor, Plan, Source
from alliage.merging.planning.scales import plan_scales
from alliage.merging.planning.signs import open_given_signs
from alliage.merging.planning.stacking import plan_stack
from alliage.merging.planning.statistics import check_statistics, open_models_statistics
from alliage.merging.recipe.files import split_lora
from alliage.merging.recipe.parameters import depth_of
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import Method, Scope
from alliage.merging.rules import rule_of

_Result = TypeVar("_Result")

_CANCELLED = 1e-8  # a sum of weights of either sign


def plan(
    recipe: MergeRecipe,
    *,
    out: str | Path | None = None,
    memory: int = DEFAULT_MEMORY,
    threads: int = 1,
    shard_bytes: int = MAX_SHARD_BYTES,
    resume: bool = False,
) -> Plan:
    """Open every model of a recipe and decide what becomes of each tensor.

    Nothing but headers is read; only where the method needs statistics, or signs are given, weights
    are hashed, to see whether they are of the same models. Misfits between the files do not raise:
    they are the plan's `problems`, all of them.

    Args:
        recipe: what to merge.
        out: where the result will go, to be checked with the rest.
        memory: bytes of anonymous memory that the merge may take.
        threads: workers.
        shard_bytes: of tensors in one file of the output; a larger tensor has a file of its own.
        resume: whether an interrupted run to `out` is meant to go on.

    Raises:
        UsageError: the recipe itself is wrong.
    """
    method, arguments = recipe.settings()
    made = Plan(recipe, method, arguments, memory=memory, threads=threads, shard_bytes=shard_bytes)
    made.notes += recipe.notes
    _check_counts(made)
    _check_masks(made)
    place = None if out is None else _attempt(made, partial(upload.destination, out))
    if isinstance(place, RemotePath):
        home = upload.local_home(str(place))
        finished = home if resume and home.is_dir() else None  # perhaps uploaded in part
        _attempt(made, partial(upload.refuse_existing, place, finished))
    elif place is not None:
        _attempt(made, partial(_check_place, out, place, recipe, resume=resume))
    needs_base = method.space == "delta" and not made.makes_adapter
    if recipe.base is None and needs_base and not name_one_base(recipe):
        what = f"{method.name} needs the models' common base."
        made.errors.append(UsageError(Problem("base", what, GIVE_BASE)))
        for ref in recipe.refs:  # their own problems
            _attempt(made, partial(open_checkpoint, split_lora(ref)[0]))
        return made
    made.base = _attempt(made, partial(open_base, recipe))
    if recipe.slices:
        _attempt(made, partial(plan_stack, made))
        _attempt(made, partial(open_models_statistics, made))
    else:
        _open_models(made)
        if not made.makes_adapter:
            _attempt(made, partial(open_models_statistics, made))
        if made.base is not None and not made.errors:
            if made.makes_adapter:
                lay_out_adapter = plan_factors if method.unit == "factors" else plan_scales
                made.errors += [AlliageError(problem) for problem in lay_out_adapter(made)]
            else:
                _plan_blocks(made)
    if made.base is None or made.errors:
        return made
    _attempt(made, partial(check_statistics, made))
    _attempt(made, partial(open_given_signs, made))
    _check_arguments(made)
    _check_memory(made)
    if place is not None and not resume:
        _check_disk(made, upload.local_home(str(place)) if isinstance(place, RemotePath) else place)
    if made.base.config is None and not made.makes_adapter:
        made.notes.append(f"{made.base.ref} has no config.json: from_pretrained needs one.")
    made.tokenizer = _attempt(made, partial(_open_tokenizer, made))
    return made


def _attempt(made: Plan, work: Callable[[], _Result]) -> _Result | None:
    """What `work` returns; nothing where it fails, and the plan keeps the error."""
    try:
        return work()
    except AlliageError as error:
        made.errors.append(error)
        return None


def _check_place(out: str | Path | None, place: Path, recipe: MergeRecipe, *, resume: bool) -> None:
    """Refuse an output without a name, that exists, or that is inside the folder of an input."""
    if out == "":
        raise UsageError(Problem("out", "is empty: no output folder.", "Name one."))
    if not (resume and place.is_dir()):  # perhaps complete already
        refuse_existing(place)
    refs = [recipe.base] if recipe.base is not None else []
    folders = [Path(part) for ref in [*refs, *recipe.refs] for part in split_lora(ref) if part]
    for folder in folders:
        if folder.is_dir() and folder.resolve() in place.absolute().resolve().parents:
            what = f"lies inside the input {folder}, which would change."
            raise UsageError(Problem(str(out), what, "Choose a folder beside it."))


def _check_counts(made: Plan) -> None:
    """Refuse more or fewer models than the method merges."""
    wanted, recipe = made.method.models, made.recipe
    counts = [len(part.models) for part in recipe.slices] or [len(recipe.models)]
    if wanted is not None and any(count != wanted for count in counts):
        found = ", ".join(map(str, sorted(set(counts) - {wanted})))
        rule = rule_of(made.method, made.arguments)
        who = f"rule {rule.name}" if rule is not None else made.method.name
        what = f"{who} merges {wanted} model{'s' * (wanted > 1)}, found {found}."
        made.errors.append(UsageError(Problem("models", what)))


def _check_masks(made: Plan) -> None:
    """Say what a method that masks its models is good for; refuse it for stacked layers."""
    if made.method.masks is None:
        return
    rebuild = "alliage apply OUT --task NAME"
    made.notes.append(f"masks of each model go to tasks/; `{rebuild}` rebuilds the model.")
    if made.recipe.slices:
        what = f"{made.method.name} keeps masks of whole models: it cannot stack layers."
        made.errors.append(UsageError(Problem("slices", what, "Give models.")))


def _open_models(made: Plan) -> None:
    for entry in made.recipe.models:
        if made.base is None:
            _attempt(made, partial(open_checkpoint, split_lora(entry.model)[0]))  # its own problems
            continue
        vector = _attempt(made, partial(open_model, entry.model, made.base, entry.name))
        if vector is not None:
            made.vectors.append(vector)
    make_names_unique(made.vectors)


def _open_tokenizer(made: Plan) -> Checkpoint | None:
    chosen = made.recipe.tokenizer
    if chosen == "base" or chosen == made.recipe.base:
        return made.base
    return open_checkpoint(split_lora(chosen)[0])


def _plan_blocks(made: Plan) -> None:
    base = made.base
    assert base is not None
    set_heads_apart(made)
    changed = {name for vector in made.vectors for name in vector.shapes}
    if not changed:
        made.errors.append(
            AlliageError(Problem(base.ref, "no model changes any of its parameters."))
        )
    # Beside heads of the models' own, a head that only the base has decides none of the tasks.
    if any(is_task_head(name) for heads in made.left_apart.values() for name in heads):
        made.dropped = [n for n in base.specs() if is_task_head(n) and n not in changed]
    recipe = made.recipe
    layers = layer_count(base.specs())
    constant = None if recipe.varies() else recipe.arguments_for("", 0.0)
    heads = {n: made.vectors[0].source(n) for n in sorted(changed) if n not in base.specs()}
    specs = {**base.specs(), **heads}  # heads that all adapters saved, and their base has not
    for name, spec in specs.items():
        if name in base.ties or name in made.dropped:
            continue
        if name not in changed:
            lay_out(made, name, spec, (), {})
            continue
        depth = depth_of(name, layers, dialect=recipe.dialect)
        arguments = constant if constant is not None else recipe.arguments_for(name, depth)
        sources = tuple(Source(number, name) for number in range(len(made.vectors)))
        lay_out(made, name, spec, sources, arguments)
    finish_layout(made)


def _check_arguments(made: Plan) -> None:
    """Refuse arguments that cannot be together, as far as the recipe alone does not tell."""
    method, problems = made.method, []
    everything: list[MergedTensor | MergedModule | MergedScales]
    everything = [*made.merged, *made.factors, *made.scales]
    weight = method.parameters.get("weight")
    if weight is not None and (weight.shares or "normalize" in method.parameters):
        for tensor in everything:
            given, total = tensor.arguments, abs(math.fsum(tensor.arguments["weight"]))
            if total == 0 if weight.shares else given["normalize"] and total < _CANCELLED:
                what = f"the weights {given['weight']} sum to zero."
                fix = "other weights." if weight.shares else "normalize: false, or other weights."
                problems.append(Problem(f"weight of {tensor.name}", what, f"Set {fix}"))
                break
    for group in made.groups():
        wrong = _differing(method, group)
        if wrong is not None:
            problems.append(wrong)
            break
    if problems:
        made.errors.append(UsageError(problems))


def _differing(method: Method, group: Sequence[MergedTensor]) -> Problem | None:
    """What keeps a group of tensors from being seen as one vector by a first pass."""
    assert method.first_pass is not None
    scopes = [name for name, p in method.parameters.items() if p.choices == get_args(Scope)]
    apart = f"{scopes[0]}: tensor" if scopes else ""
    first = group[0]
    for tensor in group[1:]:
        if [s.vector for s in tensor.sources] != [s.vector for s in first.sources]:
            what = f"is made of other models than {first.name}."
            return Problem(tensor.name, what, apart and f"Set {apart}.")
        for key in method.first_pass.reads:
            if tensor.arguments[key] != first.arguments[key]:
                found, expected = tensor.arguments[key], first.arguments[key]
                what = f"is {found} for {tensor.name}, but {expected} for {first.name}."
                fix = "Give one value for the whole of it"
                return Problem(key, what, f"{fix}, or {apart}." if apart else f"{fix}.")
    return None


def _check_memory(made: Plan) -> None:
    if made.memory >= made.least_memory:
        if made.workers < made.threads:
            what = f"{made.memory / 2**20:.1f} MiB of memory are enough for {made.workers} of "
            all_threads = f"{made.memory_for(made.threads) / 2**20:.1f} MiB"
            made.notes.append(f"{what}{made.threads} threads; all of them take {all_threads}.")
        return
    least = f"{made.least_memory / 2**20:.1f} MiB"
    if made.method.unit == "tensor" or made.makes_adapter:
        held = "module of all adapters" if made.makes_adapter else "matrix of all models"
        what = f"{made.method.name} holds the largest {held}: {least}, more than "
        made.notes.append(f"{what}the memory of {made.memory / 2**20:.1f} MiB that was asked for.")
        return
    what = f"{made.memory / 2**20:.1f} MiB are too little for this plan."
    made.errors.append(UsageError(Problem("memory", what, f"Give at least {least}.")))


def _check_disk(made: Plan, out: Path) -> None:
    existing = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < made.disk:
        what = f"needs {made.disk / 1e9:.2f} GB, {free / 1e9:.2f} GB are free."
        made.errors.append(AlliageError(Problem(str(out), what, "Make room, or write elsewhere.")))
