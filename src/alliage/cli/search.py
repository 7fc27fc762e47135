"""alliage search: how to merge, by trying it in memory."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

if TYPE_CHECKING:
    from alliage.merging import MergeRecipe
    from alliage.search.questions import Question
    from alliage.search.running import Machine, Outcome
    from alliage.search.space import Space

EXAMPLES = (
    "alliage search merge.yml --preset yadav-2023-task-arithmetic "
    "--task sentiment-data --task topics-data -o searched",
    "alliage search merge.yml --ada-merging task --steps 2 "
    "--task sentiment-data --task topics-data -o learned --json",
)

_SHOWN = 10  # trials in the table
# Of arXiv:2306.01708, for merging without a validation set.
_ADVICE = (
    ("ties", {"density": 0.2, "scale": 1.0}),
    ("task_arithmetic", {"scale": 0.4}),
)


def search(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE.yml | MODEL...", help="A recipe; models, for a soup."),
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="A folder, YAML file or built-in; repeat it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="For best.yml and the trials.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A paper's grid: yadav-2023-ties, yadav-2023-task-arithmetic."),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With search:, if the recipe itself has none."),
    ] = None,
    soup: Annotated[
        Literal["uniform", "greedy"] | None,
        typer.Option(help="Average models of one task: all, or those that help."),
    ] = None,
    ada_merging: Annotated[
        Literal["task", "layer"] | None,
        typer.Option(help="Learn a weight for each model, or for each of its tensors."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of learning weights; 500 by default.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Points; the whole grid by default, or 100.")
    ] = None,
    criterion: Annotated[
        Literal["score", "entropy"] | None,
        typer.Option(help="entropy needs no labels; of learned weights it is the default."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What the score is, of every task.")] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=MODEL", help="Whose head answers; chosen by the labels else."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    limit: Annotated[int | None, typer.Option(min=1, help="A random part of this size.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples in a pass: 64, in a step of learning 16.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of points and batches; 0 by default.")
    ] = None,
    memory: console.Memory = "1GiB",
    threads: console.Threads = console.CORES,
    device: Annotated[str, typer.Option(help="Where models answer: cpu or cuda.")] = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search that is in DIR.")
    ] = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Find out how to merge: the best method and parameters on a validation set.

    Every merge is made in memory, over one model that is loaded once, and has the values that
    alliage merge would write. DIR/best.yml is a recipe for alliage merge.

    What is tried stands in the recipe, or in a file of its own, under search: a method, the
    recipe's own by default, and values of its parameters; or a list of such entries.

    search: {method: ties, parameters: {density: [0.1, 0.2], scale: {low: 0.8, high: 3, step: 0.1}}}

    Without a task, it says what to take untried.
    """
    from alliage.studies.results import check_folder, write_table

    if soup is not None and ada_merging is not None:
        raise UsageError(Problem("--soup", "and --ada-merging are two things.", "Choose one."))
    mode = "--soup" if soup else "--ada-merging" if ada_merging else None
    _check_options(mode, preset, space, trials, resume, steps, seed)
    if not tasks:
        if mode:
            what = "needs a task to ask the models."
            raise UsageError(Problem(mode, what, "Add --task TASK."))
        _advise(inputs, json=json)
        return
    if out is None:
        raise UsageError(Problem("-o", "no output folder given.", "Add -o DIR."))
    console.check_device(device)
    check_folder(out)
    asked = _questions(
        tasks, head or [], split, limit,
        criterion or ("entropy" if ada_merging else "score"), metric, quiet=quiet,
    )  # fmt: skip
    machine = _machine(batch_size or 64, device, memory, threads)
    with console.progress(quiet) as show:
        if soup is not None:
            from alliage.search.running import search_soup

            found = search_soup(inputs, soup, asked, out, machine=machine, on_event=show)
        elif ada_merging is not None:
            from alliage.search.ada_merging import Settings
            from alliage.search.running import learn_coefficients

            settings = Settings(
                by=ada_merging, steps=steps or 500, batch_size=batch_size or 16, seed=seed or 0
            )
            recipe, _ = _recipe(inputs)
            found = learn_coefficients(recipe, asked, out, settings, machine=machine, on_event=show)
        else:
            from alliage.search.running import search_points

            recipe, own = _recipe(inputs)
            spaces = _spaces(recipe, own, preset, space)
            found = search_points(
                recipe, spaces, asked, out, trials=trials, seed=seed or 0, resume=resume,
                machine=machine, on_event=show,
            )  # fmt: skip
    write_table(out, "trials", found.to_rows(), command=" ".join(["alliage", *sys.argv[1:]]))
    for line in found.notes:
        console.note(line, quiet=quiet)
    if json:
        console.print_json(_document(found))
    else:
        _print(found)


def _check_options(
    mode: str | None,
    preset: str | None,
    space: Path | None,
    trials: int | None,
    resume: bool,
    steps: int | None,
    seed: int | None,
) -> None:
    given = {"--preset": preset, "--space": space, "--trials": trials, "--resume": resume}
    names = [name for name, value in given.items() if value]
    if mode and names:
        raise UsageError(Problem(", ".join(names), f"go with a search of points, not {mode}."))
    if steps is not None and mode != "--ada-merging":
        raise UsageError(Problem("--steps", "are of learned weights.", "Add --ada-merging."))
    if seed is not None and mode == "--soup":
        raise UsageError(Problem("--seed", "does nothing in a soup.", "Leave it out."))
    if preset and space:
        raise UsageError(Problem("--preset", "and --space are two grids.", "Choose one."))


def _questions(
    tasks: list[str],
    heads: list[str],
    split: str,
    limit: int | None,
    criterion: Any,
    metric: str | None,
    *,
    quiet: bool,
) -> list[Question]:
    from alliage.data import load_task
    from alliage.search.questions import questions_of

    wrong = [each for each in heads if not all(each.partition("="))]
    if wrong:
        raise UsageError([Problem(f"--head {each}", "expected TASK=MODEL.") for each in wrong])
    loaded = [load_task(task) for task in tasks]
    for line in dict.fromkeys(str(note) for task in loaded for note in task.notes):
        console.note(line, quiet=quiet)
    return questions_of(
        loaded,
        split=split,
        limit=limit,
        criterion=criterion,
        metric=metric,
        heads={each.rpartition("=")[0]: each.rpartition("=")[2] for each in heads},
    )


def _machine(batch_size: int, device: str, memory: str, threads: int) -> Machine:
    from alliage.evaluation.scoring import Settings
    from alliage.search.running import Machine

    budget = console.size_in_bytes(memory, "--memory")
    return Machine(Settings(batch_size=batch_size, device=device), budget, threads)


def _recipe(inputs: list[str]) -> tuple[MergeRecipe, tuple[Space, ...]]:
    """The recipe, and what it says is to be searched, if anything."""
    from alliage.search.recipe_file import load_search

    if len(inputs) != 1 or not inputs[0].endswith((".yml", ".yaml")):
        fix = "Models alone go with --soup."
        raise UsageError(Problem(" ".join(inputs), "expected one recipe (*.yml).", fix))
    return load_search(Path(inputs[0]))


def _spaces(
    recipe: MergeRecipe, own: tuple[Space, ...], preset: str | None, file: Path | None
) -> tuple[Space, ...]:
    """What is to be searched: by the preset, the file, or the recipe itself."""
    from alliage.search.space import PRESETS, preset_spaces, read_spaces

    if preset is not None:
        return preset_spaces(preset, recipe)
    if file is not None:
        return read_spaces(file, recipe)
    if not own:
        example = "search: {parameters: {scale: [0.3, 0.5, 1.0]}}"
        other = f"--space FILE or --preset {' | '.join(PRESETS)}"
        fix = f"Add it, such as {example}, or give {other}."
        raise UsageError(Problem("search:", "the recipe does not say what to try.", fix))
    return own


def _advise(inputs: list[str], *, json: bool) -> None:
    """The recipes to take where there is nothing to try them on."""
    base, models = "BASE", inputs
    if inputs[0].endswith((".yml", ".yaml")):
        recipe, _ = _recipe(inputs)
        base, models = recipe.base or base, list(recipe.refs)
    commands = [
        shlex.join(
            ["alliage", "merge", "--method", method, "--base", base, *models,
             *(part for key, value in values.items() for part in ("--set", f"{key}={value:g}")),
             "-o", "merged"]
        )
        for method, values in _ADVICE
    ]  # fmt: skip
    if json:
        advice = [{"method": m, "parameters": p, "command": c}
                  for (m, p), c in zip(_ADVICE, commands, strict=True)]  # fmt: skip
        console.print_json({"advice": advice})
        return
    print("No task to try merges on (--task). Untried, these are the values to take:")
    for command in commands:
        print(f"  {command}")
    print("They are the ones of arXiv:2306.01708 for merging without a validation set.")


def _document(found: Outcome) -> dict[str, Any]:
    return {
        "best": {
            "recipe": found.recipe.model_dump(mode="json", exclude_defaults=True),
            "path": str(found.path),
            "metric": found.metric,
            "value": found.score.value,
            "tasks": {
                question.task.name: value
                for question, value in zip(found.questions, found.score.by_task, strict=True)
            },
        },
        "trials": [
            {
                "trial": trial.number,
                "method": trial.method,
                "parameters": dict(trial.parameters),
                "value": trial.score and trial.score.value,
                "problem": trial.problem,
                "seconds": trial.seconds,
            }
            for trial in found.trials
        ],
        "notes": list(found.notes),
    }


def _print(found: Outcome) -> None:
    sign = -1 if found.questions[0].maximised else 1
    sound = [(trial, trial.score) for trial in found.trials if trial.score is not None]
    ranked = sorted(sound, key=lambda each: sign * each[1].value)
    tasks = [question.task.name for question in found.questions]
    rows = [
        [
            trial.number, trial.method, _shown(trial.parameters), score.value,
            *(score.by_task if len(tasks) > 1 else ()),
        ]
        for trial, score in ranked[:_SHOWN]
    ]  # fmt: skip
    title = f"the best of {len(found.trials)} merges, by {found.metric}"
    columns = ("trial", "method", "parameters", "mean", *(tasks if len(tasks) > 1 else ()))
    console.print_table(title, columns, rows, numbers_from=3)
    failed = [trial for trial in found.trials if trial.score is None]
    if failed:
        print(f"{len(failed)} could not be merged, the first because: {failed[0].problem}")
    print(f"{found.path}: {found.recipe.method}, {found.metric} {found.score.value:.4f}.")


def _shown(parameters: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in parameters.items())
