"""alliage compare: how far apart models are."""

from __future__ import annotations

import math
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console

if TYPE_CHECKING:
    from alliage.geometry import Survey

EXAMPLES = (
    "alliage compare --base base sentiment topics",
    "alliage compare --base base sentiment-lora topics-lora --metrics geodesic --modules q,v",
)


def compare(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Full models and adapters, two or more.")
    ],
    base: Annotated[str, typer.Option(help="The models' common ancestor.")],
    metrics: Annotated[
        str,
        typer.Option(
            help="l2 (Frobenius), cosine (1 − cos), geodesic, angle_sum, chordal, "
            "projection_frobenius, procrustes, fubini_study, martin, asimov, binet_cauchy."
        ),
    ] = "l2,cosine,geodesic",
    by: Annotated[str, typer.Option(help="module, layer or model.")] = "module",
    last_layers: Annotated[
        int | None, typer.Option(metavar="K", help="Only the last K layers.")
    ] = None,
    modules: Annotated[
        str | None, typer.Option(help="Only these kinds: q,v or query,value,mlp,...")
    ] = None,
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="A results folder: every distance, Parquet.")
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Maps, trees, profiles, ...: SVG, and CSV beside each."),
    ] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Compare models tuned from one base: distances for all pairs, by module, layer or model."""
    import alliage

    words = [word.strip() for word in metrics.split(",") if word.strip()]
    with console.progress(quiet) as show:
        survey = alliage.compare(
            base, models, words, by, modules=modules, last_layers=last_layers, on_event=show
        )
    written: str | None = None
    if out is not None:
        from alliage.studies.results import write_table

        command = shlex.join(["alliage", *sys.argv[1:]])
        written = str(write_table(out, "distances", survey.to_rows(), command=command))
    drawn: list[str] = []
    if figures is not None:
        from alliage.geometry.mapping.saving import save_pictures

        drawn = [str(path) for path in save_pictures(survey, figures)]
    if json:
        console.print_json(_document(survey, written) | {"figures": drawn})
        return
    for metric in survey.metrics:
        means = survey[metric].mean("module").values.tolist()
        rows = [
            (name, *(None if math.isnan(value) else value for value in row))
            for name, row in zip(survey.names, means, strict=True)
        ]
        console.print_table(_title(survey, metric), ("", *survey.names), rows)
    for line in survey.findings():
        print(line)
    for line in survey.notes:
        console.note(f"note: {line}", quiet=quiet)
    if written is not None:
        console.note(f"Wrote {written}.", quiet=quiet)
    if drawn:
        console.note(f"Drew {len(drawn) // 2} figures in {figures}.", quiet=quiet)


def _title(survey: Survey, metric: str) -> str:
    defined = int(survey[metric].notnull().any(("task", "other")).sum())
    return f"{metric}, mean over {defined} modules" if defined > 1 else metric


def _document(survey: Survey, written: str | None) -> dict[str, Any]:
    def mean(array: Any) -> list[list[float]]:
        return list(array.mean("module").values.tolist())

    return {
        "models": survey.names,
        "modules": survey.data["module"].values.tolist(),
        "metrics": {
            metric: {
                "definition": survey[metric].attrs["long_name"],
                "mean": mean(survey[metric]),
                "random_subspaces": mean(survey.null[metric]) if metric in survey.null else None,
            }
            for metric in survey.metrics
        },
        "distances": list(survey.to_rows()),
        "findings": survey.findings(),
        "notes": survey.notes,
        "written": written,
    }
