"""alliage evaluate: scores, calibration, size, speed, and whether they will do."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console
from alliage.errors import AlliageError, CheckFailed, Problem

if TYPE_CHECKING:
    from alliage.data import Task
    from alliage.evaluation import Scores

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
        typer.Option("--calibration", help="In detail: intervals, by class, null bands."),
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

    A model is left out of tasks that it has no head for. One that records its task answers, of
    several tasks, only that one; --cross asks it for all whose labels fit. A repair is shown beside
    the model as it is; conditions are on the repaired one. In them, base is the model named by
    --against.
    """
    from alliage.data import load_task
    from alliage.evaluation.comparing import compare_scores
    from alliage.evaluation.evidence import known_metrics
    from alliage.evaluation.requirements import parse_requirements
    from alliage.studies.results import check_folder

    console.check_device(device)
    if out is not None:
        check_folder(out)
    loaded = [load_task(task) for task in tasks]
    for line in dict.fromkeys(str(note) for task in loaded for note in task.notes):
        console.note(line, quiet=quiet)
    known = {metric for task in loaded for metric in known_metrics(task)}
    if calibration:
        known.add("lower_distance")
    requirements = parse_requirements(require or (), known, has_base=against is not None)
    judge = _Judge(
        loaded,
        cross,
        {
            "head": head, "split": split, "limit": limit, "batch_size": batch_size,
            "max_new_tokens": max_new_tokens, "device": device, "speed": speed, "repair": repair,
            "calibration": calibration,
        },
    )  # fmt: skip
    with console.progress(quiet) as show:
        reference = None if against is None else judge.score(against, show)
        found = [
            reference if model == against else judge.score(model, show)
            for model in dict.fromkeys(models)
        ]
    scored = [scores for scores in found if scores is not None]
    shown = _with_unrepaired(scored)
    if against is None:
        reference = shown[0] if len(shown) > 1 else None
    elif reference is not None and reference not in shown:
        shown = _with_unrepaired([reference, *scored])
    comparisons = [] if reference is None else compare_scores(shown, reference)
    if out is not None:
        _save(shown, comparisons, out)
    if json:
        document = {
            "scores": [scores.to_rows() for scores in shown],
            "comparisons": comparisons,
            "left_out": list(map(str, judge.left_out)),
        }
        console.print_json(document)
    else:
        _print(shown)
        _print_comparisons(comparisons)
    for problem in judge.left_out:
        console.note(f"left out: {problem}", quiet=quiet)
    for line in dict.fromkeys(task.note for scores in shown for task in scores.tasks if task.note):
        console.note(line, quiet=quiet)
    if judge.unfit or not scored:
        raise AlliageError(judge.unfit or judge.left_out)
    _check(requirements, scored, reference)


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

    def score(self, model: str, show: Any) -> Scores | None:
        """A model's scores; nothing where it could be scored on no task."""
        from alliage.checkpoints import open as open_checkpoint
        from alliage.evaluation import Misfit, Unlabelled
        from alliage.evaluation import evaluate as score
        from alliage.evaluation.heads import own_tasks
        from alliage.evaluation.scores import join_scores

        parts: list[Scores] = []
        missed: list[Problem] = []
        hidden: list[Problem] = []
        with open_checkpoint(model) as checkpoint:
            chosen = self._tasks if self._cross else own_tasks(checkpoint, self._tasks)
        for task in self._tasks:
            if task not in chosen:
                what = f"the model was made for {chosen[0].name}."
                fix = "Score it nevertheless with --cross."
                missed.append(Problem(f"{model} on {task.name}", what, fix))
                continue
            try:
                parts.append(score(model, task, on_event=show, **self._settings))
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


def _check(requirements: Sequence[Any], scored: Sequence[Scores], reference: Scores | None) -> None:
    from alliage.evaluation.requirements import check_requirements

    references = {task.task: task.metrics for task in reference.tasks} if reference else {}
    problems = [
        problem
        for scores in scored
        for problem in check_requirements(
            requirements,
            {task.task: task.metrics for task in scores.tasks},
            references,
            scores.model,
        )
    ]
    if problems:
        raise CheckFailed(problems)


def _print(found: Sequence[Scores]) -> None:
    if not found:
        return
    models = [
        (s.model, s.role, s.method or None, s.layers, f"{s.parameters:,}", console.size(s.bytes))
        for s in found
    ]
    columns = ("model", "role", "method", "layers", "parameters", "size")
    console.print_table("models", columns, models, numbers_from=3)
    scored = [(scores.model, task) for scores in found for task in scores.tasks]
    for name in dict.fromkeys(task.task for _, task in scored):
        here = {model: task for model, task in scored if task.task == name}
        metrics = list(dict.fromkeys(metric for task in here.values() for metric in task.metrics))
        rows: list[list[object]] = [
            [metric, *(_with_interval(task, metric) for task in here.values())]
            for metric in metrics
        ]
        rows.append(["seconds", *(f"{task.seconds:.2f}" for task in here.values())])
        if any(task.truncated for task in here.values()):
            rows.append(["cut at the longest length", *(t.truncated for t in here.values())])
        first = next(iter(here.values()))
        title = f"{name}: scores on {first.split}, {first.examples} examples, 95 % intervals"
        console.print_table(title, ("metric", *here), rows)
    details = [(model, task.task, one) for model, task in scored for one in task.calibration]
    if details:
        rows = [
            [model, task, one.metric, one.value, *map(_or_none, one[2:])]
            for model, task, one in details
        ]
        title = "calibration: 95 % intervals; where calibrated models lie; each class alone"
        headings: tuple[str, ...] = (
            "model", "task", "measure", "value", "low", "high", "chance from", "to",
            "classes, mean", "largest",
        )  # fmt: skip
        console.print_table(title, headings, rows, numbers_from=3)
    speeds = [(model, task.task, one) for model, task in scored for one in task.speed]
    if speeds:
        rows = [
            [model, task, one.batch, one.median * 1e3, one.low * 1e3, one.high * 1e3,
             one.throughput]
            for model, task, one in speeds
        ]  # fmt: skip
        one = speeds[0][2]
        title = f"speed on {one.device}, {one.threads} threads; median and quartiles of a pass"
        headings = ("model", "task", "batch", "ms", "25 %", "75 %", "examples/s")
        console.print_table(title, headings, rows, numbers_from=2)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _with_interval(task: Any, metric: str) -> str | None:
    if metric not in task.metrics:
        return None
    interval = task.intervals.get(metric)
    brackets = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval else ""
    return f"{task.metrics[metric]:.4f}{brackets}"


def _print_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> None:
    for against, task in dict.fromkeys((row["against"], row["task"]) for row in comparisons):
        rows = [
            [
                row["model"], row["metric"], f"{row['value']:+.4f}",
                f"[{row['low']:+.4f}, {row['high']:+.4f}]", row["p"], row["test"],
            ]
            for row in comparisons
            if row["task"] == task
        ]  # fmt: skip
        title = f"{task}: difference to {against}, on the same examples"
        columns = ("model", "metric", "difference", "95 %", "p", "test")
        console.print_table(title, columns, rows, numbers_from=2)


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
