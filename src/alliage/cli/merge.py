"""alliage merge: several models into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

if TYPE_CHECKING:
    from alliage.merging import MergeRecipe, Plan

EXAMPLES = (
    "alliage merge merge.yml -o merged",
    "alliage merge --method ties --base base sentiment topics --set density=0.2 --dry-run",
)

_LEAST_SHARD = 10**6  # bytes: below it every tensor gets a file of its own


def merge(
    inputs: Annotated[
        list[str], typer.Argument(metavar="RECIPE.yml | MODEL...", help="A recipe, or models.")
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="A new folder or URL.")] = None,
    method: Annotated[str | None, typer.Option(help="Instead of a recipe: the method.")] = None,
    base: Annotated[str | None, typer.Option(help="The models' common ancestor.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A parameter; weight=1,0.5 for each model."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the output: float32, float16 or bfloat16.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Of (IA)3 adapters, make one again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    memory: console.Memory = "1GiB",
    shard_size: Annotated[str, typer.Option(help="Of the output's files, at most.")] = "5GB",
    threads: console.Threads = console.CORES,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    on: Annotated[
        Literal["local", "ray"], typer.Option(help="Here, or on a Ray cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Its HOST:PORT; else RAY_ADDRESS, or a new local one.")
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(help="Whose method: paper, mergekit, peft, fusion_bench or sd_mecha."),
    ] = None,
    signs: Annotated[
        str | None, typer.Option(help="File of signs in place of an election (ties).")
    ] = None,
    resume: console.Resume = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Merge models into a new checkpoint, by a recipe or by options."""
    from alliage.merging import plan, run

    recipe = _recipe(inputs, method, base, settings or [], dtype, dialect, signs, adapter)
    budget = console.size_in_bytes(memory, "--memory")
    shard_bytes = console.size_in_bytes(shard_size, "--shard-size")
    if shard_bytes < _LEAST_SHARD:
        raise UsageError(
            Problem("--shard-size", f"{shard_size} is too little.", "Give 1MB or more.")
        )
    console.check_device(device)
    if ray_address is not None and on != "ray":
        raise UsageError(Problem("--ray-address", "goes with --on ray.", "Add --on ray."))
    if out is None and not dry_run:
        raise UsageError(Problem("-o", "no output folder given.", "Add -o OUT, or --dry-run."))
    made = plan(
        recipe, out=out, memory=budget, threads=threads, shard_bytes=shard_bytes, resume=resume
    )
    for line in made.notes:
        console.note(f"note: {line}", quiet=quiet)
    document: dict[str, Any] = {"plan": made.to_dict()}
    if dry_run:
        if json:
            console.print_json(document)
        else:
            _print_plan(made)
        made.raise_problems()
        return
    with console.progress(quiet) as show:
        record = run(
            made,
            str(out),
            device=device,
            executor=on,
            ray_address=ray_address,
            resume=resume,
            on_event=show,
        )
    if json:
        document["run"] = {
            "out": str(record.out),
            "seconds": record.seconds,
            "bytes_written": record.bytes_written,
            "passes": record.passes,
            "blocks_redone": record.blocks_redone,
            "parts_kept": record.parts_kept,
        }
        console.print_json(document)
        return
    heads = f", {len(made.left_apart)} task heads beside it" if made.left_apart else ""
    print(
        f"{record.out}: {len(made.vectors)} models merged by {made.method.name}, "
        f"{console.size(record.bytes_written)}{heads}, in {record.seconds:.1f} s."
    )


def _recipe(
    inputs: list[str],
    method: str | None,
    base: str | None,
    settings: list[str],
    dtype: str | None,
    dialect: str | None,
    signs: str | None,
    adapter: bool,
) -> MergeRecipe:
    from alliage.merging import load_recipe, parse_recipe

    if method is not None:
        content = {
            "method": method,
            "dialect": dialect or "paper",
            "base": base,
            "dtype": dtype,
            "signs": signs,
            "adapter": adapter or None,
            **_parse(method, settings, inputs),
        }
        return parse_recipe(content, where="command line")
    if len(inputs) != 1 or not inputs[0].endswith((".yml", ".yaml")):
        raise UsageError(
            Problem(
                " ".join(inputs),
                "expected one recipe (*.yml).",
                "Give models together with --method NAME --base BASE.",
            )
        )
    given: dict[str, object] = {
        "--base": base,
        "--dtype": dtype,
        "--set": settings,
        "--dialect": dialect,
        "--signs": signs,
        "--adapter": adapter,
    }
    clashes = [option for option, value in given.items() if value]
    if clashes:
        raise UsageError(
            Problem(", ".join(clashes), "go with --method; a recipe says it all itself.")
        )
    return load_recipe(Path(inputs[0]))


def _parse(method: str, settings: list[str], models: list[str]) -> dict[str, Any]:
    """The models and parameters that options ask for, as a recipe has them.

    A list is one value for each model; for a parameter that all models share it is a gradient, and
    a list of mappings is rules by the tensor's name (see alliage.merging.recipe.parameters).
    """
    from alliage.merging import describe
    from alliage.merging.rules import ruled
    from alliage.recipes import parse_yaml

    named = (setting.partition("=") for setting in settings)
    declared = ruled(describe(method), {key.strip(): text for key, _, text in named}).parameters
    parameters: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {}
    seen: set[str] = set()
    problems: list[Problem] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        where = f"--set {setting}"
        if key in seen:
            problems.append(Problem(where, f"{key} is set twice.", "Set it once."))
            continue
        seen.add(key)
        try:
            value = parse_yaml(text, where)
            if isinstance(value, str) and "," in value:
                value = [parse_yaml(part, where) for part in text.split(",")]
        except UsageError as error:
            what = f"expected KEY=VALUE; VALUE {error.problems[0].what}"
            problems.append(Problem(where, what))
            continue
        values = value if isinstance(value, list) else [value]
        shared = key in declared and not declared[key].per_model
        if not equals or value is None:
            problems.append(Problem(where, "expected KEY=VALUE."))
        elif shared or any(isinstance(each, dict) for each in values):
            parameters[key] = value
        elif len(values) == 1:
            parameters[key] = values[0]
        elif len(values) == len(models):
            lists[key] = values
        else:
            what = f"{len(values)} values for {len(models)} models."
            problems.append(Problem(where, what, "Give one, or one for each model."))
    if problems:
        raise UsageError(problems)
    entries = [
        {"model": ref, "parameters": {key: values[number] for key, values in lists.items()}}
        for number, ref in enumerate(models)
    ]
    return {"models": entries, "parameters": parameters}


def _print_plan(made: Plan) -> None:
    plan = made.to_dict()
    shown = {
        "method": f"{made.method.name} ({made.method.paper})",
        "dialect": plan["dialect"] if plan["dialect"] != "paper" else None,
        "parameters": ", ".join(f"{key} {value}" for key, value in made.arguments.items()) or None,
        "by tensor": ", ".join(plan["by_tensor"]) or None,
        "base": plan["base"],
        "models": ", ".join(plan["models"]),
        "signs": plan["signs"],
        "merged": f"{plan['tensors_merged']} tensors, {plan['elements_merged']:,} elements",
        "converted": f"{plan['tensors_converted']} tensors" if plan["tensors_converted"] else None,
        "copied": f"{plan['tensors_copied']} tensors" if plan["tensors_copied"] else None,
        "layers": plan["layers"],
        "counted once": ", ".join(plan["tied"]) or None,
        "heads dropped": ", ".join(plan["heads_dropped"]) or None,
        "heads left apart": ", ".join(plan["heads_left_apart"]) or None,
        "read": console.size(plan["bytes_to_read"]),
        "write": f"{console.size(plan['bytes_to_write'])} in {len(plan['output_files'])} file(s)",
        "memory": f"{console.size(plan['working_memory'])} for blocks, {plan['threads']} threads",
        "time": f"about {plan['estimated_seconds']:.1f} s" if not made.problems else None,
        "problems": len(made.problems) or "none",
    }
    rows = [(key, value) for key, value in shown.items() if value is not None]
    console.print_table("plan", ("", ""), rows, numbers_from=2)
