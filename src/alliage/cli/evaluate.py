"""alliage evaluate: scores, calibration, size, speed, and whether they will do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console
from alliage.cli.score_tables import print_comparisons, print_scores
from alliage.errors import AlliageError, CheckFailed, Problem, UsageError

if TYPE_CHECKING:
    from alliage.data import Task
    from alliage.evaluation import Scores
    from alliage.evaluation.requirements import Requirement

EXAMPLES = (
    "alliage evaluate sentiment sentiment-lora --task sentiment-data -o results",
    "alliage evaluate sentiment-lora --task sentiment-data --against sentiment "
    "--require 'accuracy>=0.5*base' --json",
)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Full, adapters, merged or pruned models."),
    ],
    tasks: Annotated[
        list[str],
        typer.Option("--task", metavar="TASK", help="A folder, YAML file or built-in; repeat it."),
    ],
    head: Annotated[
        str | None, typer.Option(help="Of merged models: the parent whose head to use.")
    ] = None,
    cross: Annotated[
        bool,
        typer.Option("--cross", help="Also tasks that a model was not made for, if labels fit."),
    ] = False,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score a random part of this size.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Compare with this model; with the first by default."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Exit with 3 unless met: 'accuracy>=0.9*base'."),
    ] = None,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration", help="In detail: intervals, null bands, by class and domain."
        ),
    ] = False,
    repair: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of alliage calibrate; else the model's own, if any."),
    ] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Measure latency and throughput.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a pass.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of texts that are written.")] = 64,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="A results folder to add to.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Score models on tasks, with 95 % intervals, and compare them.

    A model is left out of tasks that it has no head for.

    One that records its task answers only that one of several; --cross: all whose labels fit.

    A repair is shown beside the model as it is; conditions are on the repaired one.

    In them, base is the model named by --against, which is not compared with itself.
    """
    from alliage.data import load_task
    from alliage.evaluation.comparing import compare_scores
    from alliage.evaluation.evidence import known_metrics
    from alliage.evaluation.metrics import CALIBRATION_DETAILS, WORST
    from alliage.evaluation.requirements import parse_requirements
    from alliage.evaluation.scores import with_distinct_names
    from alliage.studies.results import check_folder, read_table

    console.check_device(device)
    if out is not None:
        check_folder(out)
    loaded = [load_task(task) for task in tasks]
    of_data = list(dict.fromkeys(str(note) for task in loaded for note in task.notes))
    for line in of_data:
        console.note(line, quiet=quiet)
    known = {metric for task in loaded for metric in known_metrics(task)}
    if calibration:
        known.update(CALIBRATION_DETAILS)
        if not any(task.tells_domains(split) for task in loaded):
            known = {one for one in known if not one.endswith(WORST)}
    requirements = parse_requirements(require or (), known, has_base=against is not None)
    asked = list({_place(model): model for model in models}.values())
    base = None if against is None else _place(against)
    if any(one.relative for one in requirements) and {_place(one) for one in asked} == {base}:
        what = "is the only model: conditions with base would compare it with itself."
        raise UsageError(Problem(f"--against {against}", what, "Name another model."))
    judge = _Judge(
        loaded,
        cross,
        {
            "head": head, "split": split, "limit": limit, "batch_size": batch_size,
            "max_new_tokens": max_new_tokens, "device": device, "speed": speed,
            "calibration": calibration,
        },
    )  # fmt: skip
    others = [model for model in asked if _place(model) != base]
    everyone = others if against is None else [against, *others]
    only_base = against if len(others) == len(asked) else None
    judge.prepare(everyone, repair, requirements, only_base)
    with console.progress(quiet) as show:
        found = {model: judge.score(model, show) for model in everyone}
    present = [model for model, scores in found.items() if scores is not None]
    stored = [] if out is None else read_table(out, "models")[["model", "path"]].to_numpy().tolist()
    distinct = with_distinct_names(
        [one for one in found.values() if one is not None], map(tuple, stored)
    )
    named = dict(zip(present, distinct, strict=True))
    reference = named.get(against) if against is not None else None
    scored = [
        named[model]
        for model in (against if _place(one) == base else one for one in asked)
        if model in named
    ]
    shown = _with_unrepaired(scored)
    if against is None:
        reference = shown[0] if len(shown) > 1 else None
    elif reference is not None and not any(scores is reference for scores in shown):
        shown = _with_unrepaired([reference, *scored])
    comparisons = [] if reference is None else compare_scores(shown, reference)
    if out is not None:
        _save(shown, comparisons, out)
    notes = [note for scores in shown for note in scores.notes]
    notes += [task.note for scores in shown for task in scores.tasks if task.note]
    notes = list(dict.fromkeys(notes))
    if json:
        document = {
            "scores": [scores.to_rows() for scores in shown],
            "comparisons": comparisons,
            "left_out": list(map(str, judge.left_out)),
            "notes": [*of_data, *notes],
        }
        console.print_json(document)
    else:
        print_scores(shown)
        print_comparisons(comparisons)
    for problem in judge.left_out:
        console.note(f"left out: {problem}", quiet=quiet)
    for line in notes:
        console.note(line, quiet=quiet)
    if judge.unfit or not scored:
        raise AlliageError(judge.unfit or judge.left_out)
    _check(requirements, scored, reference if against is not None else None, loaded)


class _Judge:
    """Scores models on the tasks that fit them.

    Attributes:
        left_out: why models were left out of tasks.
        unfit: of models that fit no task at all, why.
    """

    def __init__(self, tasks: Sequence[Task], cross: bool, settings: Mapping[str, Any]) -> None:
        self.left_out: list[Problem] = []
        self.unfit: list[Problem] = []
        self._tasks = tasks
        self._cross = cross
        self._settings = settings
        self._repairs: dict[str, Path] = {}
        self._chosen: dict[str, Sequence[Task]] = {}

    def prepare(
        self,
        models: Sequence[str],
        path: Path | None,
        requirements: Sequence[Requirement],
        only_base: str | None,
    ) -> None:
        """Find out which tasks each model is asked, and which models the repair in a file is of.

        All others are scored without that repair.

        Args:
            models: all that are to be scored.
            path: the file, if any.
            requirements: the conditions.
            only_base: the model that need not meet them.

        Raises:
            UsageError: it is of none of them; or a condition is on the calibration of a repaired
                model on the very examples that its repair was fitted to.
            AlliageError: the file is of no repair.
        """
        from alliage.checkpoints import open as open_checkpoint
        from alliage.evaluation.heads import own_tasks
        from alliage.evaluation.metrics import CALIBRATION, CALIBRATION_DETAILS
        from alliage.evaluation.saved_repair import find_repair, read_repair

        given = None if path is None else read_repair(path)
        of_calibration = {*CALIBRATION, *CALIBRATION_DETAILS}
        calibration = [one for one in requirements if one.metric in of_calibration]
        split, problems = self._settings["split"], []
        for model in models:
            with open_checkpoint(model) as checkpoint:
                if path is not None and given is not None and given.is_of(checkpoint):
                    self._repairs[model] = path
                saved, _ = find_repair(checkpoint, self._repairs.get(model))
                tasks = self._tasks if self._cross else own_tasks(checkpoint, self._tasks)
            self._chosen[model] = tasks
            texts = [one.text for one in calibration if one.relative or model != only_base]
            if saved is None or not texts:
                continue
            for task in tasks:
                if saved.was_fitted_on(task, split) and saved.fits(task):
                    what = f"its repair was fitted on {task.name}: {split} itself, so that"
                    what += f" {', '.join(texts)} would say nothing."
                    problems.append(Problem(model, what, "Name another split with --split."))
        if given is not None and not self._repairs:
            what = f"was fitted to {given.model['ref']}, whose weights none of the models has."
            problems.append(Problem(str(path), what, "Fit it anew with alliage calibrate."))
        if problems:
            raise UsageError(problems)

    def score(self, model: str, show: Any) -> Scores | None:
        """The scores of a model that was prepared; nothing where it fits no task."""
        from alliage.evaluation import Misfit, Unlabelled
        from alliage.evaluation import evaluate as score
        from alliage.evaluation.scores import join_scores

        parts: list[Scores] = []
        missed: list[Problem] = []
        hidden: list[Problem] = []
        chosen = self._chosen[model]
        for task in self._tasks:
            if task not in chosen:
                what = f"the model was made for {chosen[0].name}."
                fix = "Score it nevertheless with --cross."
                missed.append(Problem(f"{model} on {task.name}", what, fix))
                continue
            try:
                repair = self._repairs.get(model)
                parts.append(score(model, task, repair=repair, on_event=show, **self._settings))
            except Unlabelled as error:
                hidden += error.problems
            except Misfit as error:
                missed += error.problems
        self.left_out += hidden
        if parts:
            self.left_out += missed
            return join_scores(parts)
        self.unfit += missed
        return None


def _with_unrepaired(scored: Sequence[Scores]) -> list[Scores]:
    """Scores, each after those without the repair, where there was one."""
    return [one for scores in scored for one in (scores.before, scores) if one is not None]


def _place(model: str) -> str:
    """The same for all ways to write a model here."""
    return os.path.realpath(model) if Path(model).exists() else model


def _check(
    requirements: Sequence[Requirement],
    scored: Sequence[Scores],
    reference: Scores | None,
    tasks: Sequence[Task],
) -> None:
    from alliage.evaluation.requirements import check_requirements

    if not requirements:
        return
    references = {task.task: task.metrics for task in reference.tasks} if reference else {}
    decided = {task.task for scores in scored for task in scores.tasks}
    problems = [
        Problem(task.name, "no model was scored on it: the conditions were not checked there.")
        for task in tasks
        if task.name not in decided
    ]
    problems += [
        problem
        for scores in scored
        for problem in check_requirements(
            [one for one in requirements if not (one.relative and scores is reference)],
            {task.task: task.metrics for task in scores.tasks},
            references,
            scores.model,
        )
    ]
    if problems:
        raise CheckFailed(problems)


def _save(found: Sequence[Scores], comparisons: Sequence[Mapping[str, Any]], folder: Path) -> None:
    from alliage.studies.results import write_table

    rows = [scores.to_rows() for scores in found]
    command = " ".join(["alliage", *sys.argv[1:]])
    tables = {
        table: [row for each in rows for row in each[table]] for table in (rows[0] if rows else ())
    }
    for table, content in (tables | {"comparisons": list(comparisons)}).items():
        if content:
            write_table(folder, table, content, command=command)
