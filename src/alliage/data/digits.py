"""Tasks on the handwritten digits that ship with scikit-learn: real data without a download.

1,797 images of 8 × 8 pixels (Alpaydin and Kaynak, UCI, "Optical Recognition of Handwritten
Digits", the test part). One half is for pre-training; every task asks another question about the
images of the other half, so no task's images were seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from alliage.data.task import Example, Task
from alliage.errors import Problem, UsageError, nearest

PREFIX = "digits:"
_PRETRAIN = "pretrain"
_SEED = 0
_VALIDATION = 1 / 3


class _Question(NamedTuple):
    """What a task asks: the names of the answers, and how each image gets its own.

    `answer` takes images uint8 [n, 8, 8], digits [n] and a generator, and returns the images to
    show and the answers [n].
    """

    labels: tuple[str, ...]
    answer: Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]


def _digit_in(*digits: int) -> Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]:
    return lambda images, digit, _: (images, np.isin(digit, digits).astype(int))


def _rotated(images: Any, _: Any, generator: np.random.Generator) -> tuple[Any, Any]:
    turns = generator.permutation(np.arange(len(images)) % 4)
    turned = [np.rot90(image, turn) for image, turn in zip(images, turns, strict=True)]
    return np.stack(turned), turns


def _mirrored(images: Any, _: Any, generator: np.random.Generator) -> tuple[Any, Any]:
    mirrored = generator.permutation(np.arange(len(images)) % 2)
    return np.where(mirrored[:, None, None] == 1, images[:, :, ::-1], images), mirrored


_TEN = tuple(map(str, range(10)))
_QUESTIONS: Mapping[str, _Question] = {
    "digit": _Question(_TEN, lambda images, digit, _: (images, digit)),
    "parity": _Question(("even", "odd"), _digit_in(1, 3, 5, 7, 9)),
    "at-least-five": _Question(("below five", "five or more"), _digit_in(5, 6, 7, 8, 9)),
    "prime": _Question(("not prime", "prime"), _digit_in(2, 3, 5, 7)),
    "multiple-of-three": _Question(("no multiple", "multiple of three"), _digit_in(0, 3, 6, 9)),
    "loop": _Question(("without a loop", "with a loop"), _digit_in(0, 6, 8, 9)),
    "straight": _Question(("curved", "straight strokes only"), _digit_in(1, 4, 7)),
    "rotation": _Question(("0°", "90°", "180°", "270°"), _rotated),
    "mirror": _Question(("as written", "mirrored"), _mirrored),
}


def names() -> list[str]:
    """Every name that `load` takes."""
    return [PREFIX + name for name in (_PRETRAIN, *_QUESTIONS)]


def load(name: str) -> Task:
    """A task on the digits, with the same splits each time.

    Args:
        name: "digits:pretrain" for the ten digits on the first half of the images; any other of
            `names()` for a question about the second half.

    Raises:
        UsageError: another name.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if name not in names():
        raise UsageError(Problem(name, "no such task.", nearest(name, names())))
    short = name.removeprefix(PREFIX)
    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)
    first, second = train_test_split(
        np.arange(len(images)), train_size=0.5, stratify=raw.target, random_state=_SEED
    )
    chosen = np.sort(first if short == _PRETRAIN else second)
    question = _QUESTIONS["digit" if short == _PRETRAIN else short]
    shown, answers = question.answer(
        images[chosen], raw.target[chosen], np.random.default_rng(_SEED)
    )
    train, validation = train_test_split(
        np.arange(len(chosen)), test_size=_VALIDATION, stratify=raw.target[chosen],
        random_state=_SEED,
    )  # fmt: skip
    splits = {
        split: tuple(Example(shown[index], int(answers[index])) for index in np.sort(indices))
        for split, indices in (("train", train), ("validation", validation))
    }
    return Task(name, "image-classification", question.labels, splits)
