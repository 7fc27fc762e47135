"""Given signs, held against what is merged."""

from __future__ import annotations

from alliage.checkpoints.signs import open_signs
from alliage.errors import AlliageError, Problem
from alliage.merging.planning.plan import Plan


def open_given_signs(made: Plan) -> None:
    """Open the recipe's signs, where it names some; every merged tensor must have its own.

    Raises:
        UsageError: nothing of that name.
        AlliageError: signs that do not fit the merge; all of them.
    """
    if made.recipe.signs is None:
        return
    made.signs = open_signs(made.recipe.signs)
    specs = made.signs.specs()
    problems = []
    for tensor in made.merged:
        found = specs.get(tensor.name)
        if found is None or found.shape != tensor.spec.shape:
            there = f"has the shape {list(found.shape)}" if found is not None else "is not there"
            what = f"{there}, expected the base's {list(tensor.spec.shape)}."
            fix = "Save signs of a model with the same base: `alliage signs`."
            problems.append(Problem(f"{made.recipe.signs}: {tensor.name}", what, fix))
    if problems:
        raise AlliageError(problems)
