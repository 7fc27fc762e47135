"""alliage interference: where models get in each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console

if TYPE_CHECKING:
    from alliage.geometry import Interference

EXAMPLES = (
    "alliage interference --base base sentiment topics",
    "alliage interference --base base sentiment-lora topics-lora --top-k 0.1 --modules q,v",
)


def interference(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Full models and adapters, two or more.")
    ],
    base: Annotated[str, typer.Option(help="The models' common ancestor.")],
    top_k: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the largest entries that a model keeps.")
    ] = 0.2,
    last_layers: Annotated[
        int | None, typer.Option(metavar="K", help="Only the last K layers.")
    ] = None,
    modules: Annotated[
        str | None, typer.Option(help="Only these kinds: q,v or query,value,mlp,...")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the subsets of models, where there are many.")] = 0,
    threads: console.Threads = console.CORES,
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="A results folder: every share, Parquet.")
    ] = None,
    figures: Annotated[
        str | None, typer.Option(metavar="DIR", help="Pictures: SVG, and CSV beside each.")
    ] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Count sign conflicts, redundant parameters and overlaps of models tuned from one base."""
    import alliage

    if out is not None:
        from alliage.studies.results import check_folder, write_table

        check_folder(out)
    with console.progress(quiet) as show:
        found = alliage.interference(
            base, models, top_k, modules=modules, last_layers=last_layers, seed=seed,
            threads=threads, on_event=show,
        )  # fmt: skip
    written: str | None = None
    if out is not None:
        command = console.command_line()
        written = str(write_table(out, "interference", found.to_rows(), command=command))
    drawn: list[str] = []
    if figures is not None:
        from alliage.geometry.mapping.saving import write_pictures

        drawn = [str(path) for path in write_pictures(found.pictures(), figures)]
    if json:
        console.print_json(_document(found, written, drawn))
        return
    for table in found.tables():
        console.print_table(table.title, table.columns, table.rows, numbers_from=table.words)
    for line in found.findings():
        print(line)
    for line in found.notes:
        console.note(f"note: {line}", quiet=quiet)
    if written is not None:
        console.note(f"Wrote {written}.", quiet=quiet)
    if drawn:
        console.note(f"Drew {len(drawn) // 2} figures in {figures}.", quiet=quiet)


def _document(found: Interference, written: str | None, drawn: list[str]) -> dict[str, Any]:
    return {
        "models": found.names,
        "top_k": found.top_k,
        "parameters": int(found.data["parameters"].sum()),
        "modules": found.data["module"].values.tolist(),
        "interference": list(found.to_rows()),
        "findings": found.findings(),
        "notes": found.notes,
        "written": written,
        "figures": drawn,
    }
