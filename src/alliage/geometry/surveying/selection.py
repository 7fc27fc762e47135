"""Which parameters of some task vectors are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from alliage.checkpoints.names import KINDS, kind_of, layer_of, parse_kinds, stack_of
from alliage.errors import Problem, UsageError, nearest
from alliage.geometry.surveying.fused import PARTS, fused_outputs
from alliage.geometry.surveying.pieces import Piece, is_upright
from alliage.vectors import Vector


def check_vectors(vectors: Sequence[Vector]) -> None:
    """Refuse vectors that cannot be compared.

    Raises:
        UsageError: every problem.
    """
    problems = []
    if len(vectors) < 2:
        problems.append(
            Problem("models", f"expected two or more, got {len(vectors)}.", "Give another model.")
        )
    counts = Counter(vector.name for vector in vectors)
    problems += [
        Problem(
            name, f"is the name of {count} models.", "Give each model once, under its own name."
        )
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


def parse_modules(modules: str | Sequence[str] | None, problems: list[Problem]) -> tuple[str, ...]:
    """Kinds of modules as a user names them, "q,v" or a list; unknown ones go to `problems`."""
    kinds: tuple[str, ...] = ()
    for word in modules.split(",") if isinstance(modules, str) else modules or ():
        try:
            kinds += parse_kinds(word)
        except KeyError:
            kind = word.strip()
            problems.append(
                Problem(f"kind of module {kind!r}", "is unknown.", nearest(kind, KINDS))
            )
    return kinds


def select(
    vectors: Sequence[Vector], kinds: Sequence[str], last_layers: int | None
) -> tuple[list[str], list[str]]:
    """The parameters that all vectors have, of some kinds and layers.

    Args:
        vectors: one or more.
        kinds: of modules; none stands for all.
        last_layers: K, of each stack of layers; without it, what lies outside the stacks too.

    Returns:
        the parameters in natural order, layer 10 after layer 9, and notes on what was left out.

    Raises:
        UsageError: nothing is left.
    """
    everywhere = set.intersection(*(set(vector.shapes) for vector in vectors))
    anywhere = {name for vector in vectors for name in vector.shapes}
    if not everywhere:
        raise UsageError(
            [
                Problem(
                    vector.name,
                    f"changes no parameter that all others change too; its own: "
                    f"{some(sorted(vector.shapes))}.",
                    "Compare models that were tuned in the same modules.",
                )
                for vector in vectors
            ]
        )
    notes = []
    if left_out := sorted(anywhere - everywhere):
        notes.append(
            f"{len(left_out)} of {len(anywhere)} parameters are not tuned in all models and were "
            f"left out: {some(left_out)}."
        )
    chosen = everywhere
    if kinds:
        found = {kind_of(name) for name in chosen}
        if problems := [
            Problem(f"kind of module {kind!r}", "is in none of them.", f"Found: {some(found)}.")
            for kind in kinds
            if kind not in found
        ]:
            raise UsageError(problems)
        chosen = {name for name in chosen if kind_of(name) in kinds}
    if last_layers is not None:
        base = vectors[0].base
        depths = _depths(base.specs() if base is not None else anywhere)
        deepest = max(depths.values(), default=0)
        if last_layers > deepest:
            raise UsageError(
                Problem("last_layers", f"is {last_layers}, but the model has {deepest} layers.")
            )
        chosen = {
            name
            for name in chosen
            if (layer := layer_of(name)) is not None
            and layer >= depths[stack_of(name)] - last_layers
        }
        if not chosen:
            raise UsageError(
                Problem(
                    f"the last {last_layers} layers",
                    "hold no parameter that all models change.",
                    "Take more layers, or other modules.",
                )
            )
    return sorted(chosen, key=_natural), notes


def pieces(
    vectors: Sequence[Vector], kinds: Sequence[str], last_layers: int | None
) -> tuple[list[Piece], list[str]]:
    """What `select` finds; of fused projections only the queries, keys or values asked for.

    Args:
        vectors: one or more.
        kinds: as in `select`; "qkv" takes fused projections whole.
        last_layers: as in `select`.

    Raises:
        UsageError: nothing is left, or it is not known which outputs are the queries.
    """
    everywhere = set.intersection(*(set(vector.shapes) for vector in vectors))
    found = {kind_of(name) for name in everywhere}
    parts = [kind for kind in kinds if kind in PARTS]
    if not parts or "qkv" not in found or "qkv" in kinds:
        names, notes = select(vectors, kinds, last_layers)
        return [Piece(name) for name in names], notes
    sought = [kind for kind in kinds if kind not in parts or kind in found] + ["qkv"]
    names, notes = select(vectors, sought, last_layers)
    chosen: list[Piece] = []
    problems = []
    base = vectors[0].base
    config = base.config if base is not None else None
    for name in names:
        if kind_of(name) != "qkv":
            chosen.append(Piece(name))
            continue
        shape = vectors[0].shapes[name]
        outputs = shape[0] if is_upright(vectors[0], Piece(name)) else shape[-1]
        order = fused_outputs(config, name, outputs)
        if order is None:
            problems.append(
                Problem(
                    name,
                    "holds queries, keys and values in one matrix, in an order that is not known "
                    f"for models of type {(config or {}).get('model_type')!r}.",
                    "Name the kind qkv to compare it whole.",
                )
            )
        else:
            chosen += [Piece(name, part, tuple(order[part])) for part in PARTS if part in parts]
    if problems:
        raise UsageError(problems)
    return chosen, notes


def _depths(names: Iterable[str]) -> dict[str, int]:
    """How many layers each stack has."""
    depths: dict[str, int] = {}
    for name in names:
        if (layer := layer_of(name)) is not None:
            home = stack_of(name)
            depths[home] = max(depths.get(home, 0), layer + 1)
    return depths


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")
