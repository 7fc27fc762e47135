"""alliage demo: the main job on real images that ship with scikit-learn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from alliage.cli import console

EXAMPLES = (
    "alliage demo",
    "alliage demo -o elsewhere",
)


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Kept, and used again next time.")
    ] = Path("demo-results"),
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Train a base, tune tasks from it, survey, merge, prune, evaluate and report. Minutes."""
    from alliage.report import write_report
    from alliage.studies.demo import mean_scores, run_demo

    started = time.perf_counter()
    with console.steps(quiet) as show:
        results = run_demo(out, on_event=show)
    report = write_report(results, out / "report.html")
    means = mean_scores(results)
    seconds = time.perf_counter() - started
    if json:
        console.print_json({"report": str(report), "seconds": seconds, "mean_accuracy": means})
        return
    console.print_table("mean accuracy over the tasks", ("models", "accuracy"), means.items())
    print(f"Open {report} ({seconds:.0f} s).")
