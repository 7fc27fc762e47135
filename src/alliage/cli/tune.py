"""alliage tune: a model or an adapter from a base and a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alliage.cli import console

EXAMPLES = (
    "alliage tune tune.yml -o tuned",
    "alliage tune tune.yml -o tuned-again --json",
)


def tune(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yml", help="What to tune, and how.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The new folder.")],
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Tune a model on a task, in full or with LoRA."""
    import alliage

    with console.progress(quiet) as show:
        record = alliage.tune(recipe, out=out, on_event=show)
    if json:
        console.print_json(
            {
                "out": str(record.out),
                "task": record.task,
                "method": record.method,
                "seconds": record.seconds,
                "steps": record.steps,
                "parameters_trained": record.trained,
                "training_loss": record.loss,
            }
        )
        return
    print(
        f"{record.out}: tuned on {record.task} ({record.method}), {record.steps} steps, "
        f"{record.trained:,} parameters trained, loss {record.loss:.4f}, "
        f"in {record.seconds:.1f} s."
    )
