"""A task: what is decided, between which labels, on which examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from alliage.errors import AlliageError, Problem, UsageError, nearest

Kind = Literal[
    "sequence-classification",
    "token-classification",
    "image-classification",
    "regression",
    "multiple-choice",
    "text-generation",
]
# Kinds that a language model answers, by the likelihood of texts or by writing one.
GENERATIVE: tuple[Kind, ...] = ("multiple-choice", "text-generation")
SPLITS = ("train", "validation", "test")
_HELD_OUT = 0.1


class Example(NamedTuple):
    """One example; what it holds depends on the task's kind.

    Attributes:
        inputs: sequence-classification, regression: one text or two, as a tuple;
            token-classification: tokens, as a tuple;
            image-classification: an image, uint8 [h, w] grey or [h, w, 3] colour;
            multiple-choice: (prompt, (choice, ...));
            text-generation: (source,), where "" asks for plain language modelling.
        label: nothing where a split hides its labels; otherwise
            sequence- and image-classification: index into the task's labels;
            token-classification: one index for each token, as a tuple;
            regression: a number;
            multiple-choice: index of the right choice;
            text-generation: the target text.
        domain: the part of the data that it belongs to, where the task names a column of them.
    """

    inputs: Any
    label: Any
    domain: str | None = None


class LazyExamples(Sequence[Example], ABC):
    """Examples of which each is read when it is asked for."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return Selection(self, np.asarray(places, dtype=np.int64))
        return self.at(places)

    @abstractmethod
    def at(self, place: int) -> Example:
        """The example at a place, counted from 0."""


class Selection(LazyExamples):
    """Some of the examples of a split, in a given order."""

    def __init__(self, examples: Sequence[Example], places: NDArray[np.int64]) -> None:
        self._examples = examples
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def at(self, place: int) -> Example:
        """As in the split."""
        return self._examples[int(self._places[place])]


@dataclass(frozen=True)
class Task:
    """A data set with a question.

    Attributes:
        name: short name for tables.
        kind: what is asked.
        labels: their names; none where the answer is a number, one of an example's own choices,
            or a text.
        splits: split name -> examples, in the order of the files. A split larger than memory is
            read as it is indexed: slice it or go through it, do not copy it.
        files: where the examples come from, images of a folder one by one; none for those of a
            package or of the hub.
        notes: what a user should know of how it was read: hidden labels, splits that were cut.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[Example]]
    files: tuple[Path, ...] = ()
    notes: tuple[Problem, ...] = ()

    @property
    def has_entities(self) -> bool:
        """Whether the labels are IOB2 tags of entities."""
        return self.kind == "token-classification" and is_iob2(self.labels)

    def tells_domains(self, split: str) -> bool:
        """Whether the examples of a split, if there is one, have domains."""
        examples = self.splits.get(split, ())
        return len(examples) > 0 and examples[0].domain is not None

    def examples(self, split: str, *, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """The examples of a split, or a random part of them, in the order of the files.

        Of one seed, a smaller part is contained in every larger one.

        Raises:
            UsageError: the task has no such split.
        """
        if split not in self.splits:
            raise UsageError(
                Problem(f"{self.name}: {split}", "no such split.", nearest(split, self.splits))
            )
        examples = self.splits[split]
        if limit is None or limit >= len(examples):
            return examples
        chosen = np.random.default_rng(seed).permutation(len(examples))[:limit]
        return select(examples, np.sort(chosen))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(examples)}" for split, examples in self.splits.items())
        return f"<{self.kind} task {self.name}: {len(self.labels)} labels; {sizes}>"


def is_iob2(labels: tuple[str, ...]) -> bool:
    """Whether tags mark entities: "O", "B-…" and "I-…"."""
    return any(tag.startswith("B-") for tag in labels) and all(
        tag == "O" or tag.startswith(("B-", "I-")) for tag in labels
    )


def select(examples: Sequence[Example], indices: NDArray[np.int64]) -> Sequence[Example]:
    """The examples at these indices; copied where they are in memory anyway."""
    if isinstance(examples, tuple):
        return tuple(examples[index] for index in indices)
    return Selection(examples, indices)


def hold_out(
    examples: Sequence[Example], seed: int = 0, *, where: str = "train"
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Cut a validation split from a train split that has none: 90 % stay, 10 % go, at random.

    Args:
        examples: of the train split.
        seed: of the choice.
        where: the split, for errors.

    Raises:
        AlliageError: fewer than two examples, of which none would stay.
    """
    if len(examples) < 2:
        what = "one example: none can be held out for validation."
        raise AlliageError(Problem(where, what, "Add a validation split, or more examples."))
    count = max(1, round(_HELD_OUT * len(examples)))
    order = np.random.default_rng(seed).permutation(len(examples))
    return select(examples, np.sort(order[count:])), select(examples, np.sort(order[:count]))
