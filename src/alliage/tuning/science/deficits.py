"""Deficits of the data that are lifted after some epochs: critical periods (arXiv:1711.08856)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from alliage.data import Task
from alliage.data.encoding import Features
from alliage.errors import Problem, UsageError
from alliage.tuning.science._settings import Variant

Corruption = Callable[[Features, np.random.Generator], Features]

_OF_IMAGES = ("blur", "flip", "noise")


class DeficitSettings(Variant):
    """What is wrong with the training data, and from when to when.

    blur: images shrunk by `strength` and enlarged again, bilinearly (32 to 8 pixels in the paper);
    flip: upside down; noise: standard normal noise instead of the image, anew each time; labels:
    consistently renamed, by a permutation that moves each of them; vocabulary: tokens in random
    groups of `strength`, each group told apart no more. The paper has no text: this is its blur.
    """

    _choice: ClassVar = "kind"
    _belongs: ClassVar = {"blur": ("strength",), "vocabulary": ("strength",)}

    kind: Literal["blur", "flip", "noise", "labels", "vocabulary"] = Field(
        description="What is wrong."
    )
    start: int = Field(default=0, ge=0, description="The first epoch with the deficit, from 0.")
    end: int = Field(ge=1, description="The first epoch without it again.")
    strength: int = Field(default=4, ge=2, description="Of blur and vocabulary.")

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start must be below end, got {self.start} and {self.end}")
        return self


class DeficientExamples(torch.utils.data.Dataset[Features]):
    """Encoded examples, with the deficit while it lasts.

    Attributes:
        epoch: the present one, from 0; to be set.
    """

    def __init__(
        self,
        examples: Sequence[Features],
        settings: DeficitSettings,
        corrupt: Corruption,
        seed: int,
    ) -> None:
        self.epoch = 0
        self._examples = examples
        self._settings = settings
        self._corrupt = corrupt
        self._seed = seed

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Features:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Features]:
        """Several at once, as torch's loader asks for a batch."""
        if hasattr(self._examples, "__getitems__"):  # encoded now, together
            rows = self._examples.__getitems__(indices)
        else:
            rows = [self._examples[index] for index in indices]
        if not self._settings.start <= self.epoch < self._settings.end:
            return list(rows)
        return [
            self._corrupt(row, np.random.default_rng((self._seed, self.epoch, index)))
            for row, index in zip(rows, indices, strict=True)
        ]


def build(
    settings: DeficitSettings,
    examples: Sequence[Features],
    task: Task,
    tokenizer: Any,
    seed: int,
) -> DeficientExamples:
    """Wrap the examples to train on.

    Args:
        settings: the deficit.
        examples: encoded.
        task: that they belong to.
        tokenizer: of text tasks.
        seed: of permutations, groups and noise.

    Raises:
        UsageError: a deficit that does not go with the task.
    """
    if settings.kind in _OF_IMAGES and task.kind != "image-classification":
        raise UsageError(Problem(f"deficit: {settings.kind}", f"needs images, not {task.kind}."))
    generator = np.random.default_rng(seed)
    if settings.kind == "blur":
        corrupt = _on_images(lambda image, _: blur(image, settings.strength))
    elif settings.kind == "flip":
        corrupt = _on_images(lambda image, _: image.flip(-2))
    elif settings.kind == "noise":
        corrupt = _on_images(
            lambda image, noise: torch.from_numpy(noise.standard_normal(image.shape, np.float32))
        )
    elif settings.kind == "labels":
        if len(task.labels) < 2 or task.kind == "token-classification":
            raise UsageError(
                Problem("deficit: labels", f"needs one label out of several, not {task.kind}.")
            )
        renamed = derangement(len(task.labels), generator)
        corrupt = _on_labels(renamed)
    else:
        if tokenizer is None:
            raise UsageError(Problem("deficit: vocabulary", f"needs text, not {task.kind}."))
        known = merged_vocabulary(
            len(tokenizer), tokenizer.all_special_ids, settings.strength, generator
        )
        corrupt = _on_tokens(known)
    return DeficientExamples(examples, settings, corrupt, seed)


def blur(image: torch.Tensor, factor: int) -> torch.Tensor:
    """An image [channels, height, width] shrunk by a factor and enlarged again."""
    height, width = image.shape[-2:]
    small = torch.nn.functional.interpolate(
        image[None],
        (max(1, round(height / factor)), max(1, round(width / factor))),
        mode="bilinear",
        antialias=True,
    )
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear")[0]


def derangement(size: int, generator: np.random.Generator) -> np.ndarray:
    """A permutation of 0, …, size − 1 that leaves nothing in its place: one random cycle."""
    order = generator.permutation(size)
    moved = np.empty(size, dtype=int)
    moved[order] = np.roll(order, -1)
    return moved


def merged_vocabulary(
    size: int, special: Sequence[int], group: int, generator: np.random.Generator
) -> np.ndarray:
    """For each token the first of its random group; special ones stand alone."""
    ordinary = np.setdiff1d(np.arange(size), np.asarray(special, dtype=int))
    shuffled = generator.permutation(ordinary)
    known = np.arange(size)
    known[shuffled] = shuffled[np.arange(len(shuffled)) // group * group]
    return known


def callback(examples: DeficientExamples) -> Any:
    """A callback that tells the examples which epoch it is."""
    from transformers import TrainerCallback

    class Deficit(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_epoch_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            examples.epoch = int(state.epoch or 0)

    return Deficit()


def _on_images(change: Any) -> Corruption:
    def corrupt(features: Features, generator: np.random.Generator) -> Features:
        return {**features, "pixel_values": change(features["pixel_values"], generator)}

    return corrupt


def _on_labels(renamed: np.ndarray) -> Corruption:
    def corrupt(features: Features, _: np.random.Generator) -> Features:
        return {**features, "labels": int(renamed[features["labels"]])}

    return corrupt


def _on_tokens(known: np.ndarray) -> Corruption:
    def corrupt(features: Features, _: np.random.Generator) -> Features:
        return {**features, "input_ids": known[np.asarray(features["input_ids"])].tolist()}

    return corrupt
