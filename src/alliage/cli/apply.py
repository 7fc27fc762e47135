"""alliage apply: an adapter, or a task of a merged model, and its base into one full model."""

from __future__ import annotations

from typing import Annotated

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

EXAMPLES = (
    "alliage apply sentiment-lora -o sentiment-full",
    "alliage apply merged --task topics -o topics-rebuilt",
)


def apply(
    adapter: Annotated[
        str,
        typer.Argument(
            help="A LoRA or (IA)3 adapter: a folder or hub id. With --task, a merged model."
        ),
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new folder.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The model it adapts; by default the one it names.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Of a model merged by emr or tall_masks: the task to rebuild."),
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
    """Write an adapter applied to its base, or a merged model's task, as a full model."""
    import alliage

    if out is None:
        raise UsageError(Problem("-o", "no output folder given.", "Add -o OUT."))
    budget = console.size_in_bytes(memory, "--memory")
    with console.progress(quiet) as show:
        record = alliage.apply(
            adapter,
            out=out,
            base=base,
            task=task,
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
    done = f"{adapter} applied" if task is None else f"{task} out of {adapter}"
    print(f"{record.out}: {done}, {console.size(record.bytes_written)}, in {record.seconds:.1f} s.")
