"""Opening what a recipe names: the base, and each model as the vector that is merged."""

from __future__ import annotations

from collections.abc import Iterable

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.planning.plan import Plan
from alliage.merging.recipe.files import split_lora
from alliage.merging.recipe.schema import MergeRecipe
from alliage.vectors import Combination, TaskVector, Vector, WholeModel
from alliage.vectors import open as open_vector

GIVE_BASE = "Give it: base: in a recipe, --base on the command line."


def name_one_base(recipe: MergeRecipe) -> bool:
    """Whether every model is an adapter, and the settings of all name one base."""
    bases = set()
    for ref in recipe.refs:
        model, adapter = split_lora(ref)
        try:
            opened = open_checkpoint(model)
        except AlliageError:  # which is told where it is opened to be merged
            return False
        if adapter is not None or opened.adapter is None or opened.base is None:
            return False
        bases.add(str(opened.base.location))
    return len(bases) == 1 and not recipe.slices


def open_base(recipe: MergeRecipe) -> Checkpoint:
    """The recipe's base; without one the first model, or what the first adapter adapts."""
    ref = recipe.base if recipe.base is not None else split_lora(recipe.refs[0])[0]
    base = open_checkpoint(ref)
    if base.adapter is None:
        return base
    if recipe.base is not None:
        raise UsageError(Problem(base.ref, "is an adapter; a base must be a full model."))
    if base.base is None:
        what = "is an adapter that names no base."
        raise UsageError(Problem(base.ref, what, GIVE_BASE))
    return base.base


def open_model(ref: str, base: Checkpoint, name: str | None) -> Vector:
    """A model's task vector; of "model+adapter", that of the model with the adapter applied."""
    model, adapter = split_lora(ref)
    if adapter is None:
        return open_vector(model, base, name=name)
    tuned = open_checkpoint(model)
    if tuned.path == base.path:
        return _open_adapter(adapter, tuned, name=name)
    both = _adapted(TaskVector(base, tuned), tuned, adapter)
    return both.named(name) if name is not None else both


def open_donor(made: Plan, base: Checkpoint, ref: str) -> Vector:
    """A model that layers are taken from: against the base only for methods that need one."""
    model, adapter = split_lora(ref)
    tuned = open_checkpoint(model)
    if made.method.space == "delta":
        vector: Vector = open_vector(tuned, base)
    else:
        if tuned.adapter is not None:
            what = "is an adapter: layers are taken from full models."
            raise UsageError(Problem(ref, what, "Write model+adapter."))
        vector = WholeModel(tuned)
    if adapter is None:
        return vector
    if made.method.space == "delta" and tuned.path == base.path:
        return _open_adapter(adapter, tuned)
    return _adapted(vector, tuned, adapter)


def _adapted(vector: Vector, tuned: Checkpoint, adapter: str) -> Vector:
    """A tuned model's vector with one of its adapters applied.

    Raises:
        UsageError: what should be the adapter is a full model.
        AlliageError: the adapter changes what the vector does not have by that name.
    """
    applied = _open_adapter(adapter, tuned)
    unknown = [name for name in applied.shapes if name not in vector.shapes]
    if unknown:
        what = f"changes {unknown[0]} of {tuned.ref}, which the base does not have by this name."
        fix = "Apply the adapter first (alliage apply), and merge what that makes."
        raise AlliageError(Problem(adapter, what, fix))
    both: Vector = Combination([(1.0, vector), (1.0, applied)])
    return both.named(f"{tuned.name}+{applied.name}")


def _open_adapter(ref: str, tuned: Checkpoint, *, name: str | None = None) -> Vector:
    """What a "model+adapter" adds to its model."""
    adapter = open_checkpoint(ref, base=tuned)
    if adapter.adapter is None:
        what = f"is a full model; {tuned.ref}+{ref} needs an adapter behind the +."
        fix = "To add what models learned, use alliage arithmetic."
        raise UsageError(Problem(ref, what, fix))
    return open_vector(adapter, tuned, name=name)


def make_names_unique(vectors: Iterable[Vector]) -> None:
    """Number models of one name: each has its folder of heads and its line in tables."""
    taken: set[str] = set()
    for vector in vectors:
        name, number = vector.name, 1
        while vector.name in taken:
            number += 1
            vector.name = f"{name}-{number}"
        taken.add(vector.name)
