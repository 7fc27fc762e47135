"""Which of a tuned model's tensors belong to which of its base's, and what stays apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints.labels import config_labels
from alliage.checkpoints.names import align, is_head, is_task_head
from alliage.checkpoints.ties import tied_to
from alliage.errors import Problem, nearest

_HINTS = 8


@dataclass(frozen=True, slots=True)
class Match:
    """The outcome of matching a full model with its base.

    Attributes:
        pairs: base name -> tuned name, of weights with the same shape.
        heads: tuned names of task heads, which stay apart from the task vector.
        problems: everything that keeps the two from being compared.
    """

    pairs: dict[str, str]
    heads: tuple[str, ...]
    problems: tuple[Problem, ...]


def match(base: Checkpoint, tuned: Checkpoint) -> Match:
    """Match a full model with its base, by names up to a leading prefix.

    A task head (classifier, score, ...) belongs to the task vector only where base and tuned model
    are known to decide the same: see `decide_alike`. Else it is kept apart. Integer buffers and the
    second names of tied weights take no part.
    """
    base_specs, tuned_specs = base.specs(), tuned.specs()
    alignment = align(base_specs, tuned_specs)
    one_task = base.path == tuned.path or decide_alike(base, tuned)
    pairs, heads, problems = {}, [], []
    for name, tuned_name in alignment.pairs.items():
        expected, found = base_specs[name], tuned_specs[tuned_name]
        if not (expected.is_weight or found.is_weight):
            continue
        if name in base.ties:
            if tuned_name not in tuned.ties:
                problems.append(_untied(tuned, tuned_name, base.ties[name]))
            continue
        if is_task_head(tuned_name) and not (one_task and expected.shape == found.shape):
            heads.append(tuned_name)
        elif expected.shape != found.shape:
            problems.append(
                Problem(
                    f"{found.file}: {tuned_name}",
                    f"expected the base's shape {list(expected.shape)}, found {list(found.shape)}.",
                    "The model was tuned from another base, or its embeddings were resized.",
                )
            )
        elif not (expected.is_weight and found.is_weight):
            problems.append(
                Problem(
                    f"{found.file}: {tuned_name}",
                    f"expected a weight like the base's {expected.dtype}, found {found.dtype}.",
                    "Quantised weights cannot be compared: use the model before quantisation.",
                )
            )
        else:
            pairs[name] = tuned_name
    for name in alignment.extra:
        if name in tuned.ties:
            continue
        tied = tied_to(name, base_specs, base.config)
        if is_head(name) and tied is not None:
            problems.append(_untied(tuned, name, tied))
        elif is_head(name):
            heads.append(name)
        elif tuned_specs[name].is_weight:
            problems.append(
                Problem(
                    f"{tuned_specs[name].file}: {name}",
                    "is not in the base.",
                    f"Another architecture? {_hint(name, base_specs, problems)}".strip(),
                )
            )
    # A model with a task's head has none for words, whatever its configuration says of it.
    decides = any(is_task_head(name) for name in tuned_specs)
    for name in alignment.missing:
        tied = None if name in base.ties or decides else tied_to(name, tuned_specs, tuned.config)
        if is_head(name) and tied is not None:
            problems.append(
                Problem(
                    f"{tuned.ref}: {name}",
                    f"this model ties it to {tied}, the base ({base.ref}) does not.",
                    "Save the tuned model untied: tie_word_embeddings false, and both tensors.",
                )
            )
        if not is_head(name) and base_specs[name].is_weight and name not in base.ties:
            hint = _hint(name, tuned_specs, problems)
            problems.append(
                Problem(
                    f"{tuned.ref}: {name}",
                    f"is in the base ({base.ref}) but not in the tuned model.",
                    f"Another architecture, or an incomplete save? {hint}".strip(),
                )
            )
    return Match(pairs, tuple(heads), tuple(problems))


def _untied(tuned: Checkpoint, name: str, tied: str) -> Problem:
    """A weight of the tuned model that is another's second name in the base."""
    return Problem(
        f"{tuned.specs()[name].file}: {name}",
        f"the base ties it to {tied}, this model does not.",
        "Set tie_word_embeddings alike in both configurations, if it is the same.",
    )


def _hint(name: str, known: Collection[str], problems: Sequence[Problem]) -> str:
    """The nearest names, for the first problems: a search among thousands takes a second each."""
    return nearest(name, known) if len(problems) < _HINTS else ""


def decide_alike(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether both are known to decide between the same labels, in the same order, on one task.

    What Alliage recorded counts first, then the labels that config.json names. Two that record a
    task without labels, as regressions do, need no more than its name.
    """
    records = [(provenance.read(c.folder) or {}) if c.folder else {} for c in (one, other)]
    tasks = [record.get("task") for record in records]
    labels = [
        tuple(record.get("labels") or ()) or config_labels(checkpoint.config)
        for record, checkpoint in zip(records, (one, other), strict=True)
    ]
    if None in tasks:
        return labels[0] is not None and labels[0] == labels[1]
    return tasks[0] == tasks[1] and labels[0] == labels[1]
