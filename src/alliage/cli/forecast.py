"""alliage forecast: what merges will cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console

if TYPE_CHECKING:
    from alliage.geometry.forecasting.result import Forecast

EXAMPLES = (
    "alliage forecast --base base sentiment topics --task sentiment-data --task topics-data",
    "alliage forecast --base base sentiment-lora topics-lora "
    "--task sentiment-data --task topics-data --method factor_average --json",
)
REFUSED = 3
_SHOWN = ("all.lost", "value.lost", "expected", "variation")


def forecast(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Full models and adapters, two or more.")
    ],
    base: Annotated[str, typer.Option(help="The models' common ancestor.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Of merging; by default average with --task, else all that were learned."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Data of each model's task, in their order; labels are not looked at."),
    ] = None,
    examples: Annotated[int, typer.Option(help="At most so many of each task.")] = 64,
    split: Annotated[str, typer.Option(help="Of the tasks.")] = "validation",
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="A results folder: every loss, Parquet.")
    ] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Say what merging every pair, and all, will cost each task: with intervals, groups, advice.

    That needs --task: merges are made in memory and asked about unlabelled examples. Without it,
    weights alone only order the partners of each task, weakly. Exit code 3: the models lie outside
    of what was learned, there is no forecast, and only the predictors are told.
    """
    import alliage

    if out is not None:
        from alliage.studies.results import check_folder, write_table

        check_folder(out)
    with console.progress(quiet) as show:
        found = alliage.forecast(
            base, models, method or (), tasks=task or (), examples=examples, split=split,
            on_event=show,
        )  # fmt: skip
    written: str | None = None
    if out is not None:
        command = console.command_line()
        written = str(write_table(out, "forecast", found.to_rows(), command=command))
    if json:
        console.print_json(_document(found, written))
    else:
        _print(found)
        for line in found.notes:
            console.note(f"note: {line}", quiet=quiet)
        if written is not None:
            console.note(f"Wrote {written}.", quiet=quiet)
    if found.refused:
        raise typer.Exit(REFUSED)


def _print(found: Forecast) -> None:
    if found.refused:
        rows = [
            (" + ".join(each.models), each.task, each.method, name, value)
            for each in found.expected
            for name, value in each.predictors.items()
            if any(reason.startswith(f"{name} ") for reason in each.refused) or name in _SHOWN
        ]
        columns = ("models", "task", "method", "predictor", "value")
        console.print_table("predictors, no forecast", columns, rows)
        if found.needs == "weights":
            print("With --task for each model, merges are made in memory and asked.")
    else:
        for method in found.methods:
            what = "points lost" if found.needs == "answers" else "order of partners"
            title = f"{method}: {what}, task by row, merged with by column"
            console.print_table(title, ("", *found.names), found.matrix(method))
        if len(found.names) > 2 and found.needs == "answers":
            console.print_table("all together", ("method", *found.names), found.together())
        print(found.caption)
    for line in found.findings():
        print(line)


def _document(found: Forecast, written: str | None) -> dict[str, Any]:
    return {
        "models": found.names,
        "needs": found.needs,
        "forecast": [
            {**row, "predictors": dict(each.predictors)}
            for row, each in zip(found.to_rows(), found.expected, strict=True)
        ],
        "groups": {method: found.groups(method) for method in found.methods}
        if found.needs == "answers"
        else {},
        "findings": found.findings(),
        "notes": found.notes,
        "written": written,
    }
