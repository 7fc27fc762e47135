"""Given signs, held against what is merged."""

from __future__ import annotations

import json

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints.signs import INPUTS, open_signs
from alliage.errors import AlliageError, Problem
from alliage.merging.planning.plan import Plan

_BLOCK = 2**20  # elements looked at together


def open_given_signs(made: Plan) -> None:
    """Open the recipe's signs, where it names some: of the same base, for every merged tensor.

    Raises:
        UsageError: nothing of that name.
        AlliageError: signs of another base, or that do not fit the merge; all of them.
    """
    if made.recipe.signs is None:
        return
    made.signs = open_signs(made.recipe.signs)
    specs = made.signs.specs()
    problems = _of_another_base(made, made.signs)
    for tensor in made.merged:
        found = specs.get(tensor.name)
        if found is None or found.shape != tensor.spec.shape:
            there = f"has the shape {list(found.shape)}" if found is not None else "is not there"
            what = f"{there}, expected the base's {list(tensor.spec.shape)}."
            fix = "Save signs of a model with the same base: `alliage signs`."
            problems.append(Problem(f"{made.recipe.signs}: {tensor.name}", what, fix))
    if problems:
        raise AlliageError(problems)
    if made.merged and not _any_sign(made, made.signs):
        made.notes.append(f"all signs in {made.recipe.signs} are zero: no model changes the base.")


def _of_another_base(made: Plan, signs: Checkpoint) -> list[Problem]:
    """What tells, by the file's own record, that signs were not counted from the plan's base.

    A file of anybody else's has no such record.
    """
    text = signs.sources[0].metadata.get(INPUTS)
    if text is None or made.base is None:
        return []
    where = str(made.recipe.signs)
    try:
        base = next(source for source in json.loads(text) if source["role"] == "base")
        known, path = {str(entry["sha256"]) for entry in base["files"]}, str(base["path"])
    except (KeyError, ValueError, TypeError, StopIteration, RecursionError) as error:
        what = f"{INPUTS} in its header is no record that Alliage wrote: {error!r}."
        return [Problem(where, what, "Save the signs anew: `alliage signs`.")]
    if known.issuperset(provenance.hash_weights(made.base)):
        return []
    what = f"counts from another base ({path}) than {made.base.ref}."
    fix = f"Save signs that count from it: alliage signs MODEL --base {made.base.ref} -o FILE."
    return [Problem(where, what, fix)]


def _any_sign(made: Plan, signs: Checkpoint) -> bool:
    """Whether a merged tensor has a sign that is not zero; the first one ends the search."""
    return any(
        bool(signs.read(tensor.name, start, min(start + _BLOCK, tensor.spec.numel)).any())
        for tensor in made.merged
        for start in range(0, tensor.spec.numel, _BLOCK)
    )
