"""alliage evaluate: scores, calibration, size."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alliage.cli import console
from alliage.errors import AlliageError, Problem

if TYPE_CHECKING:
    from alliage.evaluation import Scores

EXAMPLES = (
    "alliage evaluate sentiment sentiment-lora --task sentiment-data -o results",
    "alliage evaluate topics --task topics-data --split train --limit 20 --json",
)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Classifiers, adapters, merged or pruned models."),
    ],
    tasks: Annotated[
        list[str],
        typer.Option("--task", metavar="TASK", help="A folder, YAML file or built-in; repeat it."),
    ],
    head: Annotated[
        str | None, typer.Option(help="Of merged models: the parent whose head to use.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score a random part of this size.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="A results folder to add to.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Score models on tasks; a model is left out of tasks that it has no head for."""
    from alliage.data import load_task
    from alliage.evaluation import Misfit
    from alliage.evaluation import evaluate as score
    from alliage.studies.results import check_folder

    console.check_device(device)
    if out is not None:
        check_folder(out)
    loaded = [load_task(task) for task in tasks]
    found: list[Scores] = []
    misfits: list[Problem] = []
    unfit: list[Problem] = []
    with console.progress(quiet) as show:
        for model in models:
            parts: list[Scores] = []
            missed: list[Problem] = []
            for task in loaded:
                try:
                    parts.append(
                        score(
                            model, task, head=head, split=split, limit=limit, device=device,
                            on_event=show,
                        )
                    )  # fmt: skip
                except Misfit as error:
                    missed += error.problems
            if parts:
                scored = tuple(task for part in parts for task in part.tasks)
                found.append(replace(parts[0], tasks=scored))
                misfits += missed
            else:
                unfit += missed
    if out is not None:
        _save(found, out)
    if json:
        document = {
            "scores": [scores.to_rows() for scores in found],
            "left_out": list(map(str, misfits)),
        }
        console.print_json(document)
    else:
        _print(found)
    for problem in misfits:
        console.note(f"left out: {problem}", quiet=quiet)
    if unfit:
        raise AlliageError(unfit)


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
    metrics = list(dict.fromkeys(metric for _, task in scored for metric in task.metrics))
    rows = [
        (model, task.task, *(task.metrics.get(m) for m in metrics), task.examples, task.seconds)
        for model, task in scored
    ]
    title = f"scores on {scored[0][1].split}"
    console.print_table(
        title, ("model", "task", *metrics, "examples", "seconds"), rows, numbers_from=2
    )


def _save(found: Sequence[Scores], folder: Path) -> None:
    from alliage.studies.results import write_table

    rows = [scores.to_rows() for scores in found]
    command = " ".join(["alliage", *sys.argv[1:]])
    for table in ("models", "scores", "reliability"):
        content = [row for each in rows for row in each[table]]
        if content:
            write_table(folder, table, content, command=command)
