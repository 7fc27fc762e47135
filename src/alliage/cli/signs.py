"""alliage signs: the signs of what a model learned, for a merge that takes them as given."""

from __future__ import annotations

from typing import Annotated

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

EXAMPLES = (
    "alliage signs topics --base base -o topics.safetensors",
    "alliage merge --method ties --signs oracle.safetensors --base base sentiment topics -o merged",
)


def signs(
    model: Annotated[
        str, typer.Argument(help="A model of all tasks, tuned on all their data or a few examples.")
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new *.safetensors.")] = None,
    base: Annotated[
        str | None, typer.Option(help="What it was tuned from; an adapter may name it itself.")
    ] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Save the signs of a model's task vector; `alliage merge --signs` merges by them (TIES)."""
    import alliage

    if out is None:
        raise UsageError(Problem("-o", "no output file given.", "Add -o FILE.safetensors."))
    with console.progress(quiet) as show:
        record = alliage.signs(model, out=out, base=base, on_event=show)
    if json:
        counts = {"positive": record.positive, "negative": record.negative, "zero": record.zero}
        written = {"out": str(record.out), "seconds": record.seconds}
        console.print_json({**counts, "run": written | {"bytes_written": record.bytes_written}})
        return
    total = max(record.positive + record.negative + record.zero, 1)
    print(
        f"{record.out}: {record.positive / total:.1%} up, {record.negative / total:.1%} down, "
        f"{record.zero / total:.1%} as in the base, {console.size(record.bytes_written)}, "
        f"in {record.seconds:.1f} s."
    )
