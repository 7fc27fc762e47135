"""alliage signs: the signs of what a model learned, for a merge that takes them as given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

if TYPE_CHECKING:
    from alliage.merging.signs import SignsRecord

EXAMPLES = (
    "alliage signs sentiment topics --base base --task sentiment-data --task topics-data "
    "-o estimated.safetensors",
    "alliage merge --method ties --signs oracle.safetensors --base base sentiment topics -o merged",
)


def signs(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A model of all tasks, tuned on all their data or a few examples; with --task, "
            "the models that will be merged.",
        ),
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new *.safetensors.")] = None,
    base: Annotated[
        str | None, typer.Option(help="What it was tuned from; an adapter may name it itself.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="Of each model: train one body on all tasks."),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Of each task, at random; 32 by default.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train (by default), validation or test.")
    ] = None,
    start: Annotated[
        Literal["mean", "base"] | None,
        typer.Option(help="Train from the models' mean, by default, or from the base."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of training; 100 by default.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Of training; 1e-4 by default.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples of each task in a step; 16 by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the batches; 0 by default.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where it is trained: cpu, the default, or cuda.")
    ] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Save the signs of a model's task vector; `alliage merge --signs` merges by them (TIES).

    With --task they are estimated: one body is trained on a few labelled examples of every task,
    under the models' own heads (arXiv:2306.01708, B.1).
    """
    training = _given(
        start=start, steps=steps, learning_rate=learning_rate, batch_size=batch_size, seed=seed
    )
    data = _given(examples=examples, split=split)
    if out is None:
        raise UsageError(Problem("-o", "no output file given.", "Add -o FILE.safetensors."))
    if tasks:
        where = device or "cpu"
        _estimate(models, tasks, out, base, training, data, where, json=json, quiet=quiet)
        return
    unused = (*training, *data, *_given(device=device))
    names = [f"--{key.replace('_', '-')}" for key in unused]
    if names:
        raise UsageError(Problem(", ".join(names), "go with examples to train on: --task."))
    if len(models) > 1:
        fix = "Signs of several are estimated from examples: name a task for each (--task)."
        raise UsageError(Problem(models[1], "signs are read from one model.", fix))
    import alliage

    with console.progress(quiet) as show:
        record = alliage.signs(models[0], out=out, base=base, on_event=show)
    _print(record, {}, json=json)


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _estimate(
    models: list[str],
    tasks: list[str],
    out: str,
    base: str | None,
    training: dict[str, Any],
    data: dict[str, Any],
    device: str,
    *,
    json: bool,
    quiet: bool,
) -> None:
    console.check_device(device)
    from alliage.data import load_task
    from alliage.search.few_shot import Settings, few_shot_signs

    loaded = [load_task(task) for task in tasks]
    for line in dict.fromkeys(str(note) for task in loaded for note in task.notes):
        console.note(line, quiet=quiet)
    with console.progress(quiet) as show:
        found = few_shot_signs(
            models, loaded, out, Settings(**training), base=base, device=device, on_event=show,
            **data,
        )  # fmt: skip
    first, last = found.losses[0], found.losses[-1]
    counts = ", ".join(map(str, found.examples))
    console.note(
        f"trained on {counts} examples: the loss of a batch was {first:.4f} at the first step, "
        f"{last:.4f} at the last.",
        quiet=quiet,
    )
    _print(found.signs, {"examples": list(found.examples), "losses": [first, last]}, json=json)


def _print(record: SignsRecord, more: dict[str, Any], *, json: bool) -> None:
    if json:
        counts = {"positive": record.positive, "negative": record.negative, "zero": record.zero}
        written = {"out": str(record.out), "seconds": record.seconds}
        run = written | {"bytes_written": record.bytes_written}
        console.print_json({**counts, **more, "run": run})
        return
    total = max(record.positive + record.negative + record.zero, 1)
    print(
        f"{record.out}: {record.positive / total:.1%} up, {record.negative / total:.1%} down, "
        f"{record.zero / total:.1%} as in the base, {console.size(record.bytes_written)}, "
        f"in {record.seconds:.1f} s."
    )
