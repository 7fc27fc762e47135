"""alliage arithmetic: a base and a sum of task vectors, written as one expression."""

from __future__ import annotations

from typing import Annotated

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

EXAMPLES = (
    'alliage arithmetic "sentiment - 0.5 * topics" --base base -o sharper',
    'alliage arithmetic "(a + b) / 2" a=sentiment-lora b=topics-lora --base base -o both',
)


def arithmetic(
    expression: Annotated[
        str,
        typer.Argument(
            help="Models, numbers, + - * / and parentheses; quotes around names with other signs: "
            "\"'org/model' - topics\". One that begins with a minus needs a space before it."
        ),
    ],
    definitions: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=REF...", help="Models that the expression calls by a name."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The models' common ancestor.")] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new folder.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the output: float32, float16 or bfloat16.")
    ] = None,
    memory: console.Memory = "1GiB",
    threads: console.Threads = console.CORES,
    resume: console.Resume = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Add and subtract what models learned: the base plus an expression of task vectors."""
    from alliage.merging import parse_recipe, plan, run
    from alliage.vectors import parse_expression

    missing = [
        Problem(option, what)
        for option, what, given in (
            ("--base", "no base given: task vectors count from one.", base),
            ("-o", "no output folder given.", out),
        )
        if given is None
    ]
    budget = console.size_in_bytes(memory, "--memory")
    try:
        terms = parse_expression(expression, definitions or ())
    except UsageError as error:
        raise UsageError([*missing, *error.problems]) from None
    if missing:
        raise UsageError(missing)
    left = [term for term in terms if term.weight]
    for term in terms:
        if not term.weight:
            console.note(f"note: {term.name} cancels out.", quiet=quiet)
    content = {
        "method": "task_arithmetic",
        "base": base,
        "models": [{"model": term.ref, "parameters": {"weight": term.weight}} for term in left],
        "parameters": {"scale": 1.0},
        "dtype": dtype,
    }
    recipe = parse_recipe(content, where="command line")
    made = plan(recipe, out=out, memory=budget, threads=threads, resume=resume)
    for line in made.notes:
        console.note(f"note: {line}", quiet=quiet)
    with console.progress(quiet) as show:
        record = run(made, str(out), resume=resume, on_event=show)
    if json:
        shown = [{"name": t.name, "model": t.ref, "weight": t.weight} for t in terms]
        written = {"out": str(record.out), "seconds": record.seconds}
        console.print_json(
            {"terms": shown, "run": written | {"bytes_written": record.bytes_written}}
        )
        return
    total = " ".join(f"{'-' if t.weight < 0 else '+'} {abs(t.weight):g} {t.name}" for t in left)
    heads = f", {len(made.left_apart)} task heads beside it" if made.left_apart else ""
    print(
        f"{record.out}: {base} {total}, {console.size(record.bytes_written)}{heads}, "
        f"in {record.seconds:.1f} s."
    )
