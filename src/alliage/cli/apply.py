"""alliage apply: an adapter and its base into one full model."""

from __future__ import annotations

from typing import Annotated

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

EXAMPLES = (
    "alliage apply sentiment-lora -o sentiment-full",
    "alliage apply topics-lora --base base --scale 0.5 --dtype bfloat16 -o half",
)


def apply(
    adapter: Annotated[str, typer.Argument(help="A LoRA or (IA)3 adapter: a folder or hub id.")],
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new folder.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The model it adapts; by default the one it names.")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="What its update is multiplied by; its task head stays whole.")
    ] = 1.0,
    dtype: Annotated[
        str | None, typer.Option(help="Of the output: float32, float16 or bfloat16.")
    ] = None,
    memory: console.Memory = "1GiB",
    threads: console.Threads = console.CORES,
    resume: console.Resume = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Write an adapter applied to its base as a full model, with the adapter's task head."""
    import alliage

    if out is None:
        raise UsageError(Problem("-o", "no output folder given.", "Add -o OUT."))
    budget = console.size_in_bytes(memory, "--memory")
    with console.progress(quiet) as show:
        record = alliage.apply(
            adapter,
            out=out,
            base=base,
            scale=scale,
            dtype=dtype,
            memory=budget,
            threads=threads,
            resume=resume,
            on_event=show,
        )
    if json:
        written = {"out": str(record.out), "seconds": record.seconds}
        console.print_json({"run": written | {"bytes_written": record.bytes_written}})
        return
    print(
        f"{record.out}: {adapter} applied, {console.size(record.bytes_written)}, "
        f"in {record.seconds:.1f} s."
    )
