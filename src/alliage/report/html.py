"""The report: one HTML file that needs nothing else and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import alliage
from alliage.errors import AlliageError, Problem, UsageError
from alliage.report.runs import BY_RUN
from alliage.report.sections import content
from alliage.report.sources import commands_of, find_sources, runs
from alliage.studies.results import TABLES, read_table


def write_report(folder: str | Path, out: str | Path) -> Path:
    """Write the report of a results folder; an older one is replaced when the new is complete.

    Args:
        folder: a results folder with at least one table.
        out: the HTML file.

    Returns:
        the file. The same tables give the same bytes.

    Raises:
        UsageError: no such folder, or no table in it.
        AlliageError: damaged tables, all of them; a file that cannot be written.
    """
    folder, out = Path(folder), Path(out)
    if out.is_dir():
        raise UsageError(Problem(str(out), "is a folder.", "Name an HTML file."))
    page = render_report(folder)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(out)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise AlliageError(Problem(str(out), f"cannot be written: {error.strerror}.")) from error
    return out


def render_report(folder: Path) -> str:
    """The report's HTML; see `write_report`."""
    if not folder.is_dir():
        raise UsageError(
            Problem(str(folder), "no such folder.",
                    "Give the folder that -o named in alliage compare or alliage evaluate.")
        )  # fmt: skip
    tables = {name: read_table(folder, name, runs=name in BY_RUN) for name in TABLES}
    if all(table.empty for table in tables.values()):
        wanted = ", ".join(f"{name}-*.parquet" for name in TABLES)
        raise UsageError(
            Problem(str(folder), f"expected {wanted}, found no rows.",
                    "Write them with alliage compare … -o and alliage evaluate … -o.")
        )  # fmt: skip
    report, sources = content(tables), find_sources(folder)
    css, js = (_asset(name) for name in ("report.css", "report.js"))
    environment = Environment(
        loader=PackageLoader("alliage.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        title=folder.resolve().name,
        policy=(
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src {_source(css)}; script-src {_source(js)}"
        ),
        css=css, js=js, report=report, sources=sources,
        runs=runs(sources),
        commands={
            figure.id: commands_of(figure.tables, sources)
            for section in report.sections
            for figure in section.figures
        },
        version=alliage.__version__,
    )  # fmt: skip


def _asset(name: str) -> str:
    return (files("alliage.report") / "templates" / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The expression by which a content security policy allows this text and no other."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
