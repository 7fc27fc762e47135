"""alliage tune: a model or an adapter from a base and a task."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from alliage.cli import console
from alliage.errors import Problem, UsageError

EXAMPLES = (
    "alliage tune tune.yml -o tuned",
    "alliage tune tune.yml --preset fosse-2024 -o tuned-again --json",
)


def tune(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE.yml", help="What to tune, and how.")
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", help="The new folder.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A published study: its settings for keys that the recipe leaves out."),
    ] = None,
    presets: Annotated[
        bool, typer.Option("--presets", help="List the presets, and do nothing else.")
    ] = False,
    resume: console.Resume = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Tune a model on a task: in full, with LoRA or with (IA)3."""
    import alliage

    if presets:
        _print_presets(json)
        return
    missing = [("RECIPE.yml", recipe, "recipe"), ("-o", out, "output folder")]
    problems = [Problem(name, f"no {what} given.") for name, value, what in missing if not value]
    if problems:
        raise UsageError(problems)
    chosen = {"preset": preset} if preset else {}
    # Trackers print: stdout is for the result.
    with console.progress(quiet) as show, contextlib.redirect_stdout(sys.stderr):
        record = alliage.tune(recipe, out=out, resume=resume, on_event=show, **chosen)
    for line in record.notes:
        console.note(line, quiet=quiet)
    if json:
        console.print_json({"out": str(record.out), **record.to_dict()})
        return
    looks = f", validation loss {record.best_loss:.4f}" if record.evaluations else ""
    cut = f", {record.truncated:,} examples cut" if record.truncated else ""
    print(
        f"{record.out}: tuned on {record.task} ({record.method}), {record.steps} steps, "
        f"{record.trained:,} parameters trained, loss {record.loss:.4f}{looks}{cut}, "
        f"in {record.seconds:.1f} s."
    )


def _print_presets(json: bool) -> None:
    from alliage.tuning import PRESETS

    if json:
        document = {
            name: {
                "source": preset.source,
                "settings": dict(preset.settings),
                "methods": {method: dict(keys) for method, keys in preset.methods.items()},
                "silent": preset.silent,
            }
            for name, preset in PRESETS.items()
        }
        console.print_json({"presets": document})
        return
    for name, preset in PRESETS.items():
        print(f"{name}: {preset.source}\n  Not said there: {preset.silent}")
        for method, keys in preset.methods.items():
            settings = {"method": method, **preset.settings, **keys}
            print("  " + ", ".join(_setting(key, value) for key, value in settings.items()))


def _setting(key: str, value: Any) -> str:
    """A key of a recipe and its value, as YAML writes them."""
    if isinstance(value, dict):
        return f"{key}: {{{', '.join(_setting(*item) for item in value.items())}}}"
    if isinstance(value, tuple):
        return f"{key}: [{', '.join(map(str, value))}]"
    return f"{key}: {value}"
