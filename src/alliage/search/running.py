"""Searches from a recipe, or models, and tasks to a folder with the best recipe."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alliage.checkpoints.locks import lock_file
from alliage.errors import AlliageError, Problem, UsageError
from alliage.evaluation.scoring import Settings
from alliage.merging.engine.progress import subject
from alliage.merging.planning.plan import DEFAULT_MEMORY, Plan
from alliage.merging.planning.planner import plan
from alliage.merging.recipe.schema import MergeRecipe
from alliage.search import ada_merging, soups
from alliage.search.candidates import Candidates, Score
from alliage.search.questions import Question
from alliage.search.recipe_file import BEST, write_best
from alliage.search.space import Search, Space
from alliage.search.trials import UNDEFINED, Trial, holds_trials, open_study, search, trial_of

_LOCK = ".lock"
_RESUME = "Go on with it with --resume (resume=True), or choose another folder."

OnEvent = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What a search runs on.

    Attributes:
        settings: how models are asked.
        memory: bytes for blocks, and for results of methods that are kept.
        threads: workers.
    """

    settings: Settings = field(default_factory=Settings)
    memory: int = DEFAULT_MEMORY
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search came to.

    Attributes:
        recipe: the best; it lies in the folder as best.yml.
        score: of its merge.
        questions: that were asked.
        trials: everything that was scored.
        path: of best.yml.
        notes: what a user should know.
    """

    recipe: MergeRecipe
    score: Score
    questions: tuple[Question, ...]
    trials: tuple[Trial, ...]
    path: Path
    notes: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What the score is the mean of."""
        return ", ".join(dict.fromkeys(question.metric for question in self.questions))

    def to_rows(self) -> list[dict[str, Any]]:
        """Rows of the table `trials` of `alliage.studies.results`."""
        return [
            {
                "trial": trial.number,
                "method": trial.method,
                "parameters": json.dumps(dict(trial.parameters)),
                "task": question.task.name,
                "split": question.split,
                "metric": question.metric,
                "value": value,
                "seconds": trial.seconds,
            }
            for trial in self.trials
            if trial.score is not None
            for question, value in zip(self.questions, trial.score.by_task, strict=True)
        ]


def search_points(
    recipe: MergeRecipe,
    spaces: tuple[Space, ...],
    questions: Sequence[Question],
    out: str | Path,
    *,
    trials: int | None = None,
    seed: int = 0,
    resume: bool = False,
    machine: Machine | None = None,
    on_event: OnEvent | None = None,
) -> Outcome:
    """The best of many methods and parameters.

    Args:
        recipe: the models, and parameters that are not searched.
        spaces: what is.
        questions: what every merge is asked: `questions_of`.
        out: the folder of the study and of best.yml; made if missing.
        trials: how many points; by default the whole grid, or 100 of what is endless.
        seed: of the choice of points, where they are chosen.
        resume: go on with the search that is in the folder.
        machine: what it runs on.
        on_event: called with (stage, done, total).

    Raises:
        UsageError: wrong values to search, or another search is in the folder.
        AlliageError: the models do not fit together, or a task has no head.
    """
    space, folder, machine = Search(recipe, spaces), Path(out), machine or Machine()
    with _own(folder, resume=resume, fix=_RESUME):
        maximise = questions[0].maximised
        made = _first_sound(space, machine)
        asked = _subject(recipe, spaces, questions, subject(made)["inputs"])
        with _candidates(made.recipe, questions, folder, machine) as candidates:
            study = open_study(folder, {**asked, "seed": seed}, maximise=maximise)
            found = search(
                study,
                space,
                candidates.score,
                maximise=maximise,
                trials=trials,
                seed=seed,
                on_event=on_event,
            )
        assert found.best.score is not None
        return _finished(
            folder, found.recipe, found.best.score, questions, found.trials, candidates.notes
        )


@contextmanager
def _own(folder: Path, *, resume: bool = False, fix: str = "") -> Iterator[None]:
    """Have a folder, made if missing, for one search alone; see `_refuse_other`.

    Raises:
        UsageError: another search runs in it, or has been there.
    """
    fresh, lock = not folder.exists(), None
    while lock is None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_file(folder / _LOCK)
        except BlockingIOError:
            fix = "Wait for it, or choose another folder."
            raise UsageError(Problem(str(folder), "a search runs here.", fix)) from None
    try:
        _refuse_other(folder, resume=resume, fix=fix)
        yield
    finally:
        (folder / _LOCK).unlink(missing_ok=True)
        if fresh:
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        os.close(lock)


def _refuse_other(folder: Path, *, resume: bool, fix: str) -> None:
    """Leave what another search found as it is; `fix` is for one that can be gone on with.

    Raises:
        UsageError: one has been here.
    """
    begun = holds_trials(folder)
    if begun and resume:
        return
    if begun or (folder / BEST).exists():
        fix = fix if begun and fix else "Choose another folder."
        raise UsageError(Problem(str(folder), "a search is here already.", fix))


def _first_sound(space: Search, machine: Machine) -> Plan:
    """The plan of a point that can be merged, though others may not be.

    Raises:
        AlliageError: none can: the problems of the first.
    """
    plans: list[Plan] = []
    for recipe in space.ends():
        plans.append(plan(recipe, memory=machine.memory, threads=machine.threads))
        if not plans[-1].problems:
            return plans[-1]
    plans[0].raise_problems()
    raise AssertionError("a plan with problems raises them")


def search_soup(
    models: Sequence[str],
    kind: Literal["uniform", "greedy"],
    questions: Sequence[Question],
    out: str | Path,
    *,
    machine: Machine | None = None,
    on_event: OnEvent | None = None,
) -> Outcome:
    """The average of all models, or of those that do it good (arXiv:2203.05482).

    Args:
        models: of one task, references.
        kind: "uniform" or "greedy".
        questions: what every average is asked.
        out: the folder of best.yml; made if missing.
        machine: what it runs on.
        on_event: called with ("searching", done, total).

    Raises:
        UsageError: the models are not known to decide the same, or another search is in the
            folder.
        AlliageError: the models do not fit together, or a task has no head.
    """
    folder, machine = Path(out), machine or Machine()
    everyone = tuple(range(len(models)))
    with _own(folder):
        _refuse_own_heads(soups.weighted(models, everyone))
        tried: list[tuple[tuple[int, ...], Score]] = []
        total = 1 if kind == "uniform" else 2 * len(models) - 1
        with _candidates(
            soups.weighted(models, everyone), questions, folder, machine
        ) as candidates:

            def score(chosen: tuple[int, ...]) -> float:
                tried.append((chosen, candidates.score(soups.weighted(models, chosen))))
                if on_event is not None:
                    on_event("searching", len(tried), total)
                return tried[-1][1].value

            if kind == "uniform":
                best = everyone
                if math.isnan(score(everyone)):
                    raise AlliageError(Problem("soup", UNDEFINED))
            else:
                steps = soups.greedy(len(models), score, maximise=questions[0].maximised)
                best = next(step.models for step in reversed(steps) if step.taken)
        trials = tuple(
            trial_of(number, "average", {"models": [models[place] for place in chosen]}, found)
            for number, (chosen, found) in enumerate(tried)
        )
        found = next(each for chosen, each in tried if chosen == best)
        return _finished(
            folder, soups.soup(models, best), found, questions, trials, candidates.notes
        )


def _refuse_own_heads(recipe: MergeRecipe) -> None:
    """A soup has one head, averaged like everything else."""
    made = plan(recipe)
    made.raise_problems()
    problems = [
        Problem(
            name,
            "keeps a head of its own: the models are not known to decide the same.",
            "Record one task and the same labels, in one order, for all of them.",
        )
        for name in made.left_apart
    ]
    if problems:
        raise UsageError(problems)


def learn_coefficients(
    recipe: MergeRecipe,
    questions: Sequence[Question],
    out: str | Path,
    settings: ada_merging.Settings,
    *,
    machine: Machine | None = None,
    on_event: OnEvent | None = None,
) -> Outcome:
    """AdaMerging: weights that make the merge sure of itself on examples without labels.

    Args:
        recipe: of task_arithmetic, or of ties (AdaMerging++), without weights.
        questions: whose examples are learned from; their metric judges the result.
        out: the folder of best.yml; made if missing.
        settings: how to learn.
        machine: what it runs on.
        on_event: called with ("learning", step, steps).

    Raises:
        UsageError: another method, tasks that have no entropy, or another search is in the folder.
        AlliageError: the models do not fit together, or a task has no head.
    """
    folder, machine = Path(out), machine or Machine()
    linear = ada_merging.linear_recipe(recipe)
    with _own(folder):
        with _candidates(linear, questions, folder, machine) as candidates:
            learned = ada_merging.learn(linear, candidates, settings, on_event)
            score = candidates.score(learned.recipe)
        given = {"by": settings.by, "steps": settings.steps, "start": settings.start}
        trial = Trial(0, f"{recipe.method}, weights learned", given, score, "", 0.0)
        notes = list(candidates.notes)
        if learned.entropies:
            first, last = learned.entropies[0], learned.entropies[-1]
            notes.append(
                f"entropy of a batch: {first:.4f} at the first step, {last:.4f} at the last."
            )
        return _finished(folder, learned.recipe, score, questions, (trial,), notes)


def _candidates(
    first: MergeRecipe, questions: Sequence[Question], folder: Path, machine: Machine
) -> Candidates:
    return Candidates(
        first,
        questions,
        folder,
        settings=machine.settings,
        memory=machine.memory,
        threads=machine.threads,
    )


def _finished(
    folder: Path,
    recipe: MergeRecipe,
    score: Score,
    questions: Sequence[Question],
    trials: Sequence[Trial],
    notes: Sequence[str],
) -> Outcome:
    asked = [f"{q.metric} {value:.4f} on {q.task.name}: {q.split}, {len(q.examples)} examples"
             for q, value in zip(questions, score.by_task, strict=True)]  # fmt: skip
    comments = [f"alliage search: the best of {len(trials)} merges, {score.value:.4f} in the mean"]
    path = write_best(recipe, folder, [*comments, *asked])
    return Outcome(recipe, score, tuple(questions), tuple(trials), path, tuple(notes))


def _subject(
    recipe: MergeRecipe,
    spaces: Sequence[Space],
    questions: Sequence[Question],
    inputs: Mapping[str, Any],
) -> dict[str, Any]:
    """What makes two searches the same."""
    versions = json.dumps(inputs, sort_keys=True, default=str)
    return {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "values": [space.model_dump(mode="json", exclude_defaults=True) for space in spaces],
        "tasks": [
            [each.task.name, each.split, each.metric, each.head, each.digest()]
            for each in questions
        ],
        "models": hashlib.sha256(versions.encode()).hexdigest(),
    }
