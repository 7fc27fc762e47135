"""alliage calibrate: a repair of a model's probabilities."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

EXAMPLES = (
    "alliage calibrate sentiment --task sentiment-data --repair temperature "
    "-o sentiment/calibration.json",
    "alliage calibrate topics --task topics-data --repair platt --split train -o platt.json",
)


def calibrate(
    model: Annotated[str, typer.Argument(help="A full model, adapter, merged or pruned model.")],
    task: Annotated[
        str, typer.Option("--task", metavar="TASK", help="A folder, YAML file or built-in.")
    ],
    repair: Annotated[
        str, typer.Option(help="temperature, platt, isotonic or lipschitz-isotonic.")
    ] = "temperature",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="MODEL/calibration.json applies itself."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Of merged models: the parent whose head to use.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="To fit on: train, validation or test.")
    ] = "validation",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Fit to a random part of this size.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a pass.")] = 64,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Fit a repair of a model's probabilities, and say what it changes.

    The figures after it are of five folds, each repaired by a fit to the other four.

    alliage evaluate shows a model with and without its repair.
    """
    from alliage.evaluation import calibrate as fit

    console.check_device(device)
    if out is None:
        raise UsageError(Problem("-o", "no output file given.", "Add -o FILE."))
    with console.progress(quiet) as show:
        record = fit(
            model, task, repair, out, head=head, split=split, limit=limit, batch_size=batch_size,
            device=device, on_event=show,
        )  # fmt: skip
    if record.note:
        console.note(record.note, quiet=quiet)
    if json:
        console.print_json(asdict(record))
        return
    rows = [(name, value, record.after[name]) for name, value in record.before.items()]
    title = f"{record.task}: {record.repair} on {record.split}, {record.examples} examples"
    console.print_table(title, ("metric", "before", "after, by folds"), rows)
    print(f"{record.out}: the repair, fitted to all of them.")
