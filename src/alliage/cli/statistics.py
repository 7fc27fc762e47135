"""alliage statistics: what models know of their data, for merges that need it."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError, nearest

if TYPE_CHECKING:
    from alliage.statistics import StatisticsRecord

EXAMPLES = (
    "alliage statistics fisher sentiment --task sentiment-data -o sentiment/fisher.safetensors",
    "alliage statistics regmean++ sentiment topics --task sentiment-data --task topics-data "
    "-o inputs",
)

# The options that only some kinds have.
_OWN = {
    "fisher": ("--labels", "--seed", "--head"),
    "regmean": ("--head", "--batch-size", "--memory"),
    "regmean++": ("--alpha", "--batch-size"),
}


def statistics(
    kind: Annotated[str, typer.Argument(help="fisher, regmean or regmean++.")],
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="One; of regmean++ all that will be merged."),
    ],
    tasks: Annotated[
        list[str],
        typer.Option("--task", metavar="TASK", help="A folder, YAML file or built-in, per model."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="A new .safetensors file; of regmean++ a folder of them.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    examples: Annotated[
        int, typer.Option(min=0, help="A random part of this size; 0: all of them.")
    ] = 256,
    labels: Annotated[
        str | None,
        typer.Option(help="expected, or sampled, by default where an example has many tokens."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of sampled labels; 0 by default.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of the merge by regmean_plus_plus; 0.9 by default."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Of merged models: the parent whose head to use.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples in a pass; 32 by default.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="For the sums of layers at once; 1GiB by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Run models over data and write what merges by fisher and regmean read.

    fisher: how much the answers depend on each weight, of one example at a time: a text, an image,
    a sentence with all its tokens. regmean: the inputs of each linear layer.

    regmean++: the same behind merged layers; its models are merged in turn for that.

    A merge looks for MODEL/fisher.safetensors, and so on, or for what the recipe's statistics says;
    of regmean++, the last lines are those of the recipe.
    """
    given = {
        "--labels": labels, "--seed": seed, "--alpha": alpha, "--head": head,
        "--batch-size": batch_size, "--memory": memory,
    }  # fmt: skip
    _check(kind, models, tasks, out, {key for key, value in given.items() if value is not None})
    console.check_device(device)
    alpha = 0.9 if alpha is None else alpha
    from alliage.statistics import collect_fisher, collect_regmean, collect_regmean_plus_plus
    from alliage.statistics.collecting import DEFAULT_MEMORY

    assert out is not None
    shared: dict[str, Any] = {"split": split, "examples": examples or None, "device": device}
    size: dict[str, Any] = {"batch_size": batch_size} if batch_size is not None else {}
    with console.progress(quiet) as show:
        if kind == "fisher":
            record = collect_fisher(
                models[0], tasks[0], out, labels=labels, seed=seed or 0, head=head,
                on_event=show, **shared,
            )  # fmt: skip
            records = [record]
        elif kind == "regmean":
            bound = DEFAULT_MEMORY if memory is None else console.size_in_bytes(memory, "--memory")
            record = collect_regmean(
                models[0], tasks[0], out, head=head, memory=bound, on_event=show, **size, **shared
            )
            records = [record]
        else:
            records = collect_regmean_plus_plus(
                models, tasks, out, alpha=alpha, on_event=show,
                **size, **shared,
            )  # fmt: skip
    if json:
        console.print_json({"statistics": [asdict(record) for record in records]})
        return
    _print(records, alpha)


def _check(
    kind: str, models: list[str], tasks: list[str], out: Path | None, given: set[str]
) -> None:
    if kind not in _OWN:
        raise UsageError(Problem("KIND", f"no statistics {kind!r}.", nearest(kind, _OWN)))
    problems = [
        Problem(option, f"{kind} has no such option.", "Leave it out.")
        for option in sorted(given - set(_OWN[kind]))
    ]
    if out is None:
        problems.append(Problem("-o", "no output given.", "Add -o FILE."))
    if kind != "regmean++" and len(models) > 1:
        fix = "Run it once for each of them."
        problems.append(Problem(models[1], f"{kind} is of one model.", fix))
    elif len(tasks) != len(models):
        what = f"{len(models)} model{'s' * (len(models) > 1)}, but {len(tasks)} tasks."
        problems.append(Problem("--task", what, "Name one for each model, in the same order."))
    if problems:
        raise UsageError(problems)


def _print(records: list[StatisticsRecord], alpha: float) -> None:
    first = records[0]
    name = first.kind.replace("_plus_plus", "++")
    title = f"{name} on {first.split}" + (f", {first.labels} labels" if first.labels else "")
    rows = [
        (record.model, record.task, record.examples, record.tensors, record.without, record.seconds)
        for record in records
    ]
    columns = ("model", "task", "examples", "weights", "without", "seconds")
    console.print_table(title, columns, rows, numbers_from=2)
    for record in records:
        print(f"{record.out}: {console.size(record.out.stat().st_size)} for merges of "
              f"{record.model} by {record.kind}.")  # fmt: skip
    if first.kind == "regmean_plus_plus":  # which lie where no merge looks for them
        print(f"method: {first.kind}\nparameters: {{alpha: {alpha}}}\nmodels:")
        for record in records:
            entry = {"model": record.model, "statistics": str(record.out)}
            print(f"- {dumps(entry, ensure_ascii=False)}")
