"""alliage compare: how far apart models are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console

if TYPE_CHECKING:
    from alliage.geometry import Survey

EXAMPLES = (
    "alliage compare --base base sentiment topics",
    "alliage compare --base base sentiment-lora topics-lora --metrics geodesic,rec --modules q,v",
)


def _list_metrics(wanted: bool) -> None:
    if not wanted:
        return
    from alliage.geometry.surveying.metrics import METRICS

    rows = [
        (name, metric.unit, f"i {metric.link} j" if metric.directed else "", metric.by_chance,
         metric.definition)
        for name, metric in METRICS.items()
    ]  # fmt: skip
    console.print_table("", ("metric", "unit", "directed", "chance", "definition"), rows,
                        numbers_from=5)  # fmt: skip
    raise typer.Exit


def compare(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Full models and adapters, two or more.")
    ],
    base: Annotated[str, typer.Option(help="The models' common ancestor.")],
    metrics: Annotated[
        str, typer.Option(help="Names with commas between them; see --list-metrics.")
    ] = "l2,cosine,geodesic",
    by: Annotated[str, typer.Option(help="module, layer or model.")] = "module",
    last_layers: Annotated[
        int | None, typer.Option(metavar="K", help="Only the last K layers.")
    ] = None,
    modules: Annotated[
        str | None, typer.Option(help="Only these kinds: q,v or query,value,mlp,...")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Directions that stand for a dense update; 16 by default.")
    ] = None,
    energy: Annotated[
        float | None, typer.Option(help="Instead, the share of a dense update that they hold.")
    ] = None,
    side: Annotated[
        str | None,
        typer.Option(help="Angles between images (left, the default) or row spaces (right)."),
    ] = None,
    of: Annotated[
        str, typer.Option(help="update, or A or B for one factor of LoRA alone.")
    ] = "update",
    spectra: Annotated[
        bool, typer.Option("--spectra", help="Also ranks, entropies and singular values.")
    ] = False,
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="A results folder: every value, Parquet.")
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Maps, trees, profiles, ...: SVG, and CSV beside each."),
    ] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
    list_metrics: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--list-metrics", callback=_list_metrics, is_eager=True, help="Print them all and exit."
        ),
    ] = False,
) -> None:
    """Compare models tuned from one base: all pairs, by module, layer or model."""
    import alliage

    words = [word.strip() for word in metrics.split(",") if word.strip()]
    with console.progress(quiet) as show:
        survey = alliage.compare(
            base, models, words, by, modules=modules, last_layers=last_layers, rank=rank,
            energy=energy, side=side, of=of, spectra=spectra, on_event=show,
        )  # fmt: skip
    written = [] if out is None else _write(survey, out)
    drawn: list[str] = []
    if figures is not None:
        from alliage.geometry.surveying.figures import save_pictures

        drawn = [str(path) for path in save_pictures(survey, figures)]
    if json:
        console.print_json(_document(survey, written) | {"figures": drawn})
        return
    for metric in survey.metrics:
        means = survey[metric].mean("module").values.tolist()
        low, high = (end.values.tolist() for end in survey.interval(metric))
        rows = [
            (name, *(_cell(*cell) for cell in zip(*row, strict=True)))
            for name, *row in zip(survey.names, means, low, high, strict=True)
        ]
        console.print_table(_title(survey, metric), ("", *survey.names), rows)
    _print_spectra(survey)
    for line in survey.findings():
        print(line)
    for line in survey.notes:
        console.note(f"note: {line}", quiet=quiet)
    for path in written:
        console.note(f"Wrote {path}.", quiet=quiet)
    if drawn:
        console.note(f"Drew {len(drawn) // 2} figures in {figures}.", quiet=quiet)


def _write(survey: Survey, out: str) -> list[str]:
    """The tables that have rows, and beside them the whole survey as `Survey.load` reads it."""
    from alliage.studies.results import write_table

    command = console.command_line()
    tables = {
        "distances": [*survey.to_rows()],
        "inclusion": [*survey.to_inclusion_rows()],
        "spectra": [*survey.to_spectrum_rows()],
    }
    written = [
        write_table(out, table, rows, command=command)
        for table, rows in tables.items()
        if rows or table == "distances"
    ]
    kept = Path(out) / written[0].stem.replace("distances", "survey")
    survey.save(kept)
    return [str(path) for path in (*written, kept)]


def _print_spectra(survey: Survey) -> None:
    quantities = [name for name in survey.spectra if "direction" not in survey.spectra[name].dims]
    if quantities:
        means = [survey.spectra[name].mean("module").values.tolist() for name in quantities]
        rows = [
            (name, *(None if math.isnan(value) else value for value in values))
            for name, *values in zip(survey.names, *means, strict=True)
        ]
        columns = [str(name).replace("_", " ") for name in quantities]
        count = survey.spectra.sizes["module"]
        title = f"spectra, mean over {count} modules" if count > 1 else "spectra"
        console.print_table(title, ("", *columns), rows)


def _cell(mean: float, low: float, high: float) -> str | None:
    """A mean with its interval, where it has one."""
    if math.isnan(mean):
        return None
    return f"{mean:.4g} [{low:.3g}, {high:.3g}]" if f"{low:.3g}" != f"{high:.3g}" else f"{mean:.4g}"


def _title(survey: Survey, metric: str) -> str:
    """The metric, and over how many modules the means of pairs are: from the fewest to the most."""
    import numpy as np

    from alliage.geometry.surveying.metrics import METRICS

    title = (
        f"{metric}: each row {METRICS[metric].link} each column"
        if (metric in survey.directed)
        else metric
    )
    values = survey[metric].to_numpy()
    pairs = [values[i, j] for i in range(len(values)) for j in range(len(values)) if i != j]
    counts = {int((~np.isnan(pair)).sum()) for pair in pairs} - {0}
    if not counts or max(counts) == 1:
        return title
    low, high = min(counts), max(counts)
    return f"{title}, mean over {high if low == high else f'{low}–{high}'} modules [95 %]"


def _document(survey: Survey, written: list[str]) -> dict[str, Any]:
    def mean(array: Any) -> list[list[float]]:
        return list(array.mean("module").values.tolist())

    def ends(metric: str) -> dict[str, list[list[float]]]:
        low, high = survey.interval(metric)
        return {"low": low.values.tolist(), "high": high.values.tolist()}

    settings = ("by", "side", "of", "rank", "energy")
    return {
        "models": survey.names,
        **{key: survey.data.attrs.get(key) for key in settings},
        "modules": survey.data["module"].values.tolist(),
        "metrics": {
            metric: {
                "definition": survey[metric].attrs["long_name"],
                "unit": survey[metric].attrs["units"],
                "directed": metric in survey.directed,
                "mean": mean(survey[metric]),
                "interval": ends(metric),
                "by_chance": mean(survey.null[metric]) if metric in survey.null else None,
            }
            for metric in survey.metrics
        },
        "distances": list(survey.to_rows()),
        "inclusion": list(survey.to_inclusion_rows()),
        "spectra": {
            str(name): array.mean("module").values.tolist()
            for name, array in survey.spectra.items()
        },
        "findings": survey.findings(),
        "notes": survey.notes,
        "written": written,
    }
