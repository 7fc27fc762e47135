"""A task: what is decided, between which labels, on which examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from alliage.errors import Problem, UsageError, nearest

Kind = Literal["sequence-classification", "token-classification", "image-classification"]
SPLITS = ("train", "validation", "test")
_HELD_OUT = 0.1


class Example(NamedTuple):
    """One example.

    Attributes:
        inputs: one text or two, as a tuple; or tokens, as a tuple; or an image, uint8 [h, w] grey
            or [h, w, 3] colour: by the task's kind.
        label: index into the task's labels, or one index for each token, as a tuple.
    """

    inputs: Any
    label: Any


@dataclass(frozen=True)
class Task:
    """A labelled data set.

    Attributes:
        name: short name for tables.
        kind: what is labelled: a sequence, each token, or an image.
        labels: their names; an example's label is an index into them.
        splits: split name -> examples, in the order of the files.
        files: where the examples come from; none for those that ship with a package.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    splits: Mapping[str, tuple[Example, ...]]
    files: tuple[Path, ...] = ()

    @property
    def has_entities(self) -> bool:
        """Whether the labels are IOB2 tags of entities."""
        return self.kind == "token-classification" and is_iob2(self.labels)

    def examples(
        self, split: str, *, limit: int | None = None, seed: int = 0
    ) -> tuple[Example, ...]:
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
        return tuple(examples[index] for index in np.sort(chosen))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(examples)}" for split, examples in self.splits.items())
        return f"<{self.kind} task {self.name}: {len(self.labels)} labels; {sizes}>"


def is_iob2(labels: tuple[str, ...]) -> bool:
    """Whether tags mark entities: "O", "B-…" and "I-…"."""
    return any(tag.startswith("B-") for tag in labels) and all(
        tag == "O" or tag.startswith(("B-", "I-")) for tag in labels
    )


def hold_out(
    examples: tuple[Example, ...], seed: int = 0
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Cut a validation split from a train split that has none: 90 % stay, 10 % go, at random."""
    count = max(1, round(_HELD_OUT * len(examples)))
    chosen = set(np.random.default_rng(seed).permutation(len(examples))[:count].tolist())
    return (
        tuple(example for index, example in enumerate(examples) if index not in chosen),
        tuple(example for index, example in enumerate(examples) if index in chosen),
    )
