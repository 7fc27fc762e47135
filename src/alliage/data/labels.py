"""Label sets: which there are, in which order, and whether all splits keep to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alliage.data.parts import Part
from alliage.data.task import is_iob2
from alliage.errors import Problem, nearest

Stated = tuple[str, ...] | dict[str, str] | None


def settle(
    parts: Mapping[str, list[Part]], stated: Stated
) -> tuple[tuple[str, ...], dict[str, int], list[Problem]]:
    """The labels of a task.

    Args:
        parts: split -> what its files hold.
        stated: by the user: the labels in order, or label in the files -> its name, in order.

    Returns:
        the labels in order; label in the files -> its index; and every label that is not among
        them, once for each file, with its first place and its count.
    """
    renamed = stated if isinstance(stated, dict) else {}
    told = [part for split in parts.values() for part in split if not part.hides]
    declared = next((part.declared for part in told if part.declared), ())
    if stated:
        known = tuple(dict.fromkeys(stated.values() if isinstance(stated, dict) else stated))
    elif declared:
        known = declared
    else:  # the first split that tells labels, train where there is one, says which exist
        first = next((split for split in parts.values() if not split[0].hides), [])
        known = in_order({name for part in first for name in part.labels.names()})
    index = {name: number for number, name in enumerate(known)}
    index |= {old: index[new] for old, new in renamed.items()}
    problems = []
    for part in told:
        names = tuple(renamed.get(name, name) for name in part.declared)
        if names and names != known:
            problems.append(Problem(part.where, f"expected the labels {known}, found {names}."))
        problems += [
            Problem(
                f"{part.where}, {place}",
                f"label {name!r} ({count} times) is not among the labels of the task.",
                nearest(str(name), known),
            )
            for name, (count, place) in part.labels.places.items()
            if name is not None and name not in index
        ]
    return known, index, problems


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Labels in a fixed order: numbers by value; IOB2 tags by entity, "O" first; others by name."""
    labels = tuple(sorted(names))
    if is_iob2(labels):
        return tuple(sorted(labels, key=lambda tag: (tag != "O", tag[2:], tag[:2])))
    if all(label.removeprefix("-").isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return labels
