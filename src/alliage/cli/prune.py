"""alliage prune: a shallower model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

if TYPE_CHECKING:
    from alliage.pruning import PruningPlan

EXAMPLES = (
    "alliage prune sentiment --strategy first --keep 1 -o shallow",
    "alliage prune sentiment --keep-layers 0 --dry-run",
)


def prune(
    model: Annotated[str, typer.Argument(help="A full model: a folder or hub id.")],
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new folder.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Which layers stay: first, last, alternate-even, alternate-odd, symmetric-inner, "
            "symmetric-outer, best-n or delete-worst-n."
        ),
    ] = None,
    keep: Annotated[int | None, typer.Option(help="With a strategy: how many stay.")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="For best-n and delete-worst-n: JSON list, or CSV/TSV layer,score."),
    ] = None,
    keep_layers: Annotated[
        str | None, typer.Option(help="Instead of a strategy: the layers that stay, 0,1,2,5.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Remove layers of a model, on disk; the others are numbered anew."""
    import alliage
    from alliage.pruning import plan, read_scores, run

    if out is None and not dry_run:
        raise UsageError(Problem("-o", "no output folder given.", "Add -o OUT, or --dry-run."))
    layers = None if keep_layers is None else _layers(keep_layers)
    values = None if scores is None else read_scores(scores)
    with alliage.open(model) as checkpoint:
        made = plan(
            checkpoint, strategy=strategy, keep=keep, scores=values, keep_layers=layers, out=out
        )
        document = {"plan": made.to_dict()}
        if not dry_run:
            with console.progress(quiet) as show:
                record = run(made, str(out), on_event=show)
            document["run"] = {
                "out": str(record.out),
                "seconds": record.seconds,
                "bytes_written": record.bytes_written,
            }
    if json:
        console.print_json(document)
    elif dry_run:
        _print_plan(made)
    else:
        print(
            f"{record.out}: layers {', '.join(map(str, record.kept))} of {made.stack.n_layers}, "
            f"{console.size(record.bytes_written)}, in {record.seconds:.1f} s."
        )


def _layers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        what = f"{text!r} is no list of layers."
        raise UsageError(Problem("--keep-layers", what, "Write 0,1,2,5.")) from None


def _print_plan(made: PruningPlan) -> None:
    specs = made.checkpoint.specs()
    sizes = [0] * made.stack.n_layers
    for name, spec in specs.items():
        if inside := made.stack.split(name):
            sizes[inside[0]] += spec.nbytes
    place = {layer: position for position, layer in enumerate(made.keep)}
    rows = [
        (layer, place.get(layer, "removed"), console.size(nbytes))
        for layer, nbytes in enumerate(sizes)
    ]
    columns = (made.stack.name, "becomes", "size")
    console.print_table(made.checkpoint.ref, columns, rows)
    print(
        f"{len(made.keep)} of {made.stack.n_layers} layers stay; "
        f"{console.size(made.checkpoint.nbytes)} become {console.size(made.bytes_kept)} "
        f"in {len(made.layout.shards)} file(s)."
    )
