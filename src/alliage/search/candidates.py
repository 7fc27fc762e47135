"""Models whose weights are merged in place, one for each task, all with the same body."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.reference import HEADS
from alliage.data import Task
from alliage.data.task import GENERATIVE
from alliage.errors import AlliageError, Problem, UsageError, nearest
from alliage.evaluation.heads import Misfit, choose_head, match_labels
from alliage.evaluation.models import Classifier, load_classifier
from alliage.evaluation.scoring import Settings, ask
from alliage.merging.engine.run import run
from alliage.merging.planning.plan import DEFAULT_MEMORY, Plan
from alliage.merging.planning.planner import plan
from alliage.merging.recipe.schema import MergeRecipe
from alliage.search.held import Held
from alliage.search.questions import Question
from alliage.statistics.names import sources

_MERGE = "It cannot be searched in memory: write merges (alliage merge) and evaluate them."


@dataclass(frozen=True)
class Candidate:
    """A model that answers one question.

    Attributes:
        classifier: with its head; its body is shared with the other candidates.
        parameters: name in the merged checkpoint -> name in the model.
    """

    classifier: Classifier
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Score:
    """What a merge is worth.

    Attributes:
        value: the mean over the questions.
        by_task: of each question's metric, in their order.
    """

    value: float
    by_task: tuple[float, ...]


class Candidates:
    """Merges of one set of models, scored without writing or reading a checkpoint.

    The first merge is written once, and loaded with the heads of all tasks as `evaluate` loads it;
    every other one is written over its weights in memory. Use as a context manager.

    Attributes:
        questions: what every merge is asked.
        models: a candidate for each question.
        targets: name in the merged checkpoint -> the models' common tensor.
        held: the inputs.
        notes: what a user should know.
    """

    def __init__(
        self,
        first: MergeRecipe,
        questions: Sequence[Question],
        folder: Path,
        *,
        settings: Settings | None = None,
        memory: int = DEFAULT_MEMORY,
        threads: int = 1,
    ) -> None:
        """Merge once and load the result.

        Args:
            first: one of the merges; all others have its models.
            questions: at least one.
            folder: where the first merge lies for a moment.
            settings: how models are asked.
            memory: bytes for blocks, and for results of methods that are kept.
            threads: workers.

        Raises:
            AlliageError: the merge has problems; a head is missing; or the model's class holds
                weights otherwise than the checkpoint does.
        """
        self.questions = tuple(questions)
        self.settings = settings or Settings()
        self.notes: list[str] = []
        self.targets: dict[str, Tensor] = {}
        self.models: list[Candidate] = []
        self.held = Held(memory)
        self._memory, self._threads = memory, threads
        made = self.plan(first)
        home = folder / ".merged"
        shutil.rmtree(home, ignore_errors=True)  # of a search that was killed
        try:
            run(made, home)
            with open_checkpoint(home) as checkpoint:
                checkpoint.ref = "the merge"  # what its problems name: nobody sees where it lies
                for question in self.questions:
                    self._load(checkpoint, question)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    @property
    def trainable(self) -> frozenset[str]:
        """Names in the merged checkpoint of what gradients reach.

        They do not reach buffers, such as the running means of batch normalisation.
        """
        return frozenset(
            name
            for model in self.models
            for held in [dict(model.classifier.model.named_parameters(remove_duplicate=False))]
            for name, own in model.parameters.items()
            if own in held
        )

    def plan(self, recipe: MergeRecipe) -> Plan:
        """The plan of a merge.

        Raises:
            AlliageError: it has problems; all of them.
        """
        made = plan(recipe, memory=self._memory, threads=self._threads)
        made.raise_problems()
        return made

    def score(self, recipe: MergeRecipe) -> Score:
        """Merge into the models and ask them."""
        self.held.merge_into(self.targets, self.plan(recipe))
        return self.ask()

    def ask(self) -> Score:
        """What the models are worth as they are."""
        values = tuple(
            question.measure(ask(model.classifier, question.examples, self.settings))
            for question, model in zip(self.questions, self.models, strict=True)
        )
        return Score(sum(values) / len(values), values)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.models.clear()
        self.targets.clear()
        self.held.clear()

    def _load(self, checkpoint: Checkpoint, question: Question) -> None:
        head = question.head
        beside = _heads_beside(checkpoint)
        if head is not None and head not in beside:
            where = f"--head {question.task.name}={head}"
            fix = nearest(head, beside) or "Leave it out: the merge has a head of its own."
            raise UsageError(Problem(where, "the merge has no such head.", fix))
        if head is None and question.task.kind not in GENERATIVE:
            head = self._fitting_head(checkpoint, question.task)
        classifier = load_classifier(checkpoint, question.task, head=head)
        classifier.model.to(self.settings.device).requires_grad_(False)
        parameters = sources(classifier.model, checkpoint)
        _check_values(classifier.model, parameters, checkpoint)
        held = _tensors(classifier.model)
        for name, own in parameters.items():
            shared = self.targets.setdefault(name, held[own].data)
            held[own].data = shared
        self.models.append(Candidate(classifier, parameters))

    def _fitting_head(self, checkpoint: Checkpoint, task: Task) -> str | None:
        """The only head beside the merge that fits, where no head records the task."""
        try:
            choose_head(checkpoint, task, None)
        except Misfit:
            fitting = [each for each in _heads_beside(checkpoint) if _fits(checkpoint, task, each)]
            if len(fitting) != 1:
                raise
            self.notes.append(f"{task.name} is answered by the head of {fitting[0]}.")
            return fitting[0]
        return None


def _heads_beside(checkpoint: Checkpoint) -> list[str]:
    assert checkpoint.folder is not None
    files = (checkpoint.folder / HEADS).glob("*/head.json")
    return sorted(file.parent.name for file in files)


def _fits(checkpoint: Checkpoint, task: Task, head: str) -> bool:
    try:
        match_labels(checkpoint, task, choose_head(checkpoint, task, head))
    except Misfit:
        return False
    return True


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """The model's own parameters and buffers, every name of what is tied."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _check_values(model: torch.nn.Module, names: Mapping[str, str], checkpoint: Checkpoint) -> None:
    """See that the model holds the checkpoint's values as they are, and nothing else.

    Raises:
        AlliageError: some are transposed, fused or otherwise changed.
    """
    held = _tensors(model)
    problems = [
        Problem(name, f"has other values than {own} of the loaded model.")
        for name, own in names.items()
        if not torch.equal(held[own].cpu(), checkpoint.read(name).float())
    ]
    known = {id(held[own]) for own in names.values()}  # tied tensors have several names
    problems += [
        Problem(own, "is no tensor of the checkpoint.")
        for own in model.state_dict()
        if held[own].is_floating_point() and id(held[own]) not in known and not is_task_head(own)
    ]
    _refuse(model, checkpoint, problems)


def _refuse(model: torch.nn.Module, checkpoint: Checkpoint, problems: list[Problem]) -> None:
    if problems:
        what = f"{type(model).__name__} holds weights otherwise than the files do."
        raise AlliageError([Problem(checkpoint.name, what, _MERGE), *problems[:8]])
