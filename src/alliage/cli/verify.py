"""alliage verify: check an output and its inputs against its provenance."""

from __future__ import annotations

from typing import Annotated

import typer

from alliage.cli import console
from alliage.errors import CheckFailed

EXAMPLES = (
    "alliage verify merged",
    "alliage verify merged --json",
)


def verify(
    out: Annotated[str, typer.Argument(help="A folder that Alliage wrote, or its URL.")],
    json: console.Json = False,
) -> None:
    """Recompute an output's provenance: inputs, recipe and output bytes. Exit code 3: changed."""
    from alliage.checkpoints import provenance

    compared, problems = provenance.verify(out)
    if json:
        found = {"out": out, "files": compared, "versions": provenance.made_with(out)}
        console.print_json(found | {"problems": [str(problem) for problem in problems]})
    if problems:
        raise CheckFailed(problems)
    if not json:
        print(f"{out}: {compared} files, all as recorded.")
        made_with = (f"{name} {number}" for name, number in provenance.made_with(out).items())
        print(f"Made with {', '.join(made_with) or 'versions that it does not tell'}.")
