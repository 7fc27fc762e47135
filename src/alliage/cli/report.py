"""alliage report: a results folder as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alliage.cli import console

EXAMPLES = (
    "alliage report results -o report.html",
    "alliage report results -o report.html --json",
)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="The file to write or renew.")
    ],
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Write one HTML file that works offline: maps, scores, calibration, provenance."""
    from alliage.report import write_report

    written = write_report(folder, out)
    nbytes = written.stat().st_size
    if json:
        console.print_json({"report": str(written), "bytes": nbytes})
        return
    print(written)
    console.note(f"{console.size(nbytes)}; open it in a browser.", quiet=quiet)
