"""alliage extract: a LoRA adapter out of a tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

if TYPE_CHECKING:
    from alliage.tuning import ExtractionRecord

EXAMPLES = (
    "alliage extract sentiment --base base --rank 4 -o sentiment-small",
    "alliage extract topics --base base --energy 0.9 --modules q,v -o topics-small",
)


def extract(
    tuned: Annotated[str, typer.Argument(help="A full model, or a LoRA adapter to be cut down.")],
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new folder.")] = None,
    base: Annotated[
        str | None, typer.Option(help="What it was tuned from; an adapter may name it itself.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of each module.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Instead of a rank: the share of each difference to keep, 0.9."),
    ] = None,
    modules: Annotated[
        str | None,
        typer.Option(help="Only these kinds: q,v or query,value,mlp,... All that fit by default."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the factors: float32, float16 or bfloat16.")
    ] = "float32",
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Write what a model learned as a LoRA adapter that PEFT loads, and say what it loses."""
    import alliage

    if out is None:
        raise UsageError(Problem("-o", "no output folder given.", "Add -o OUT."))
    with console.progress(quiet) as show:
        record = alliage.extract(
            tuned, out=out, base=base, rank=rank, energy=energy, modules=modules, dtype=dtype,
            on_event=show,
        )  # fmt: skip
    if json:
        console.print_json(_document(record))
        return
    rows = [
        (one.module, "x".join(map(str, one.shape)), one.rank, f"{one.kept:.2%}",
         f"{one.norm**2 / record.energy:.2%}")
        for one in record.modules
    ]  # fmt: skip
    columns = ("module", "shape", "rank", "kept of it", "of the whole")
    console.print_table("", columns, rows)
    for reason, count, share in _left_out(record):
        print(f"left out: {count} tensors with {share:.2%} of the whole: {reason}.")
    print(
        f"{record.out}: {record.kept:.1%} of the difference in {len(record.modules)} modules, "
        f"{console.size(record.bytes_written)}, in {record.seconds:.1f} s."
    )


def _left_out(record: ExtractionRecord) -> list[tuple[str, int, float]]:
    """Reason, number of tensors and share of the energy, the largest share first."""
    shares: dict[str, list[float]] = {}
    for one in record.left_out:
        shares.setdefault(one.reason, []).append(one.norm**2 / record.energy)
    found = [(reason, len(parts), sum(parts)) for reason, parts in shares.items()]
    return sorted(found, key=lambda entry: -entry[2])


def _document(record: ExtractionRecord) -> dict[str, Any]:
    return {
        "kept": record.kept,
        "modules": [
            {
                "module": one.module,
                "parameter": one.parameter,
                "shape": one.shape,
                "rank": one.rank,
                "kept": one.kept,
                "share": one.norm**2 / record.energy,
            }
            for one in record.modules
        ],
        "left_out": [
            {
                "parameter": one.parameter,
                "reason": one.reason,
                "share": one.norm**2 / record.energy,
            }
            for one in record.left_out
        ],
        "saved_whole": record.saved_whole,
        "run": {
            "out": str(record.out),
            "seconds": record.seconds,
            "bytes_written": record.bytes_written,
        },
    }
