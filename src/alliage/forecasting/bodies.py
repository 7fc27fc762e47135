"""Parents and their merges in memory: one body that becomes any merge, and a head for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alliage.data import Example, Task
from alliage.errors import Problem, UsageError
from alliage.evaluation.answers import predict
from alliage.evaluation.models import Classifier, load_classifier
from alliage.geometry.forecasting.displacement import merged_update
from alliage.geometry.surveying.pieces import Piece, factors, is_upright
from alliage.merging import describe, parse_recipe, plan
from alliage.search.held import Held
from alliage.statistics.names import sources
from alliage.vectors import LowRankVector, Vector

KINDS = ("sequence-classification", "image-classification")
_MEMORY = 1 << 28  # bytes for blocks; nothing of a merge is kept for another

Logits = NDArray[np.floating]


class Bodies:
    """Models of one base, each asked about its own task, before and after merges.

    Attributes:
        parents: name -> what the model itself answers to its examples, [n, labels].
    """

    def __init__(
        self, vectors: Sequence[Vector], tasks: Sequence[Task], split: str, count: int
    ) -> None:
        """Load the models and ask them.

        Args:
            vectors: of the models; each was opened from a folder.
            tasks: one for each model, in their order.
            split: of the tasks.
            count: at most so many examples of each.

        Raises:
            UsageError: as many tasks as models are needed; a task that is no classification of
                texts or images, or has no such split.
            Misfit: a model without a head for its task.
        """
        _check(vectors, tasks)
        self._vectors = {vector.name: vector for vector in vectors}
        base = vectors[0].base
        assert base is not None  # as they were opened
        self._base = base
        changed = {name for vector in vectors for name in vector.shapes}
        self._values = {name: base.read(name).float() for name in sorted(changed)}
        self._body = {name: value.clone() for name, value in self._values.items()}
        self._classifiers: dict[str, Classifier] = {}
        self._examples: dict[str, list[Example]] = {}
        self.parents: dict[str, Logits] = {}
        for vector, task in zip(vectors, tasks, strict=True):
            self._examples[vector.name] = unlabelled(task, split, count)
            classifier = _load(vector, task)
            self._classifiers[vector.name] = classifier
            self.parents[vector.name] = self._ask(vector.name)
            held = {
                **dict(classifier.model.named_parameters()),
                **dict(classifier.model.named_buffers()),
            }
            for name, own in sources(classifier.model, base).items():
                if name in self._body:
                    held[own].data = self._body[name]

    def answers(self, names: tuple[str, ...], method: str) -> dict[str, Logits]:
        """What a merge answers to the examples of each of its models.

        Args:
            names: of the models that are merged.
            method: with its default settings.

        Raises:
            AlliageError: the merge has problems; all of them.
        """
        for name, values in self._values.items():
            self._body[name].copy_(values)
        if method == "factor_average":
            self._average_factors(names)
        else:
            refs = [str(self._vectors[name].checkpoints[0].path) for name in names]
            content = {"method": method, "base": str(self._base.path), "models": refs}
            made = plan(parse_recipe(content), memory=_MEMORY, threads=1)
            made.raise_problems()
            Held(_MEMORY).merge_into(self._body, made)
        return {name: self._ask(name) for name in names}

    def _average_factors(self, names: tuple[str, ...]) -> None:
        chosen = [self._vectors[name] for name in names]
        adapters = [vector for vector in chosen if isinstance(vector, LowRankVector)]
        for module in adapters[0].modules:
            piece = Piece(f"{module}.weight")
            B, A, scale = merged_update([factors(v, piece) for v in adapters], "factor_average")
            delta = (B @ A * scale).float()
            upright = is_upright(adapters[0], piece)
            self._body[piece.parameter] += (delta if upright else delta.mT).reshape(
                self._body[piece.parameter].shape
            )

    def _ask(self, name: str) -> Logits:
        return predict(self._classifiers[name], self._examples[name]).logits


def unlabelled(task: Task, split: str, count: int) -> list[Example]:
    """A random part of a split, the same each time, with the first label in place of its own."""
    return [example._replace(label=0) for example in task.examples(split, limit=count)]


def _load(vector: Vector, task: Task) -> Classifier:
    """A model with its head, adapters merged into it."""
    assert vector.base is not None
    classifier = load_classifier(vector.checkpoints[0], task)
    if isinstance(vector, LowRankVector):
        merged = classifier.model.merge_and_unload()  # type: ignore[operator]  # peft's
        classifier = replace(classifier, model=merged)
    classifier.model.requires_grad_(False)
    return classifier


def _check(vectors: Sequence[Vector], tasks: Sequence[Task]) -> None:
    problems = []
    if len(vectors) != len(tasks):
        what = f"{len(tasks)} for {len(vectors)} models."
        problems.append(Problem("tasks", what, "Give each model's own task, in their order."))
    problems += [
        Problem(task.name, f"is {task.kind}.", f"Forecasts know {' and '.join(KINDS)}.")
        for task in tasks
        if task.kind not in KINDS
    ]
    if problems:
        raise UsageError(problems)


def check_factors(vectors: Sequence[Vector]) -> None:
    """Whether factors can be averaged, before anything is loaded.

    Raises:
        UsageError: a model that is no LoRA adapter, other modules, or several ranks.
    """
    advice = "Forecast another method, such as average."
    problems = [
        Problem(vector.name, "is no LoRA adapter; factor_average needs adapters.", advice)
        for vector in vectors
        if not isinstance(vector, LowRankVector)
    ]
    adapters = [vector for vector in vectors if isinstance(vector, LowRankVector)]
    for vector in adapters[1:]:
        first = adapters[0]
        if set(vector.modules) != set(first.modules):
            what = f"changes other modules than {first.name}; factor_average needs the same."
            problems.append(Problem(vector.name, what, advice))
            continue
        ranks = {(first.rank(module), vector.rank(module)) for module in first.modules}
        for mine, its in sorted(pair for pair in ranks if pair[0] != pair[1]):
            what = f"has rank {its}, {first.name} {mine}; factor_average needs one rank."
            problems.append(Problem(vector.name, what, advice))
    if problems:
        raise UsageError(problems)


def supported(method: str) -> bool:
    """Whether merges by a method can be made in memory here."""
    if method == "factor_average":
        return True
    known = describe(method)
    return known.unit != "factors" and known.masks is None
