"""What every command shares: options, tables on stdout, progress and problems on stderr."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from alliage.errors import AlliageError, PlugInWarning, Problem, UsageError

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else there.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no notes on stderr.")]
Memory = Annotated[str, typer.Option(help="For blocks: 512MiB, 2GB.")]
Threads = Annotated[int, typer.Option(min=1, help="Workers; all cores by default.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an interrupted run to OUT ended.")
]
CORES = os.cpu_count() or 1


def command_line() -> str:
    """The command as it was typed, for the tables that it writes."""
    return shlex.join(["alliage", *sys.argv[1:]])


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UsageError: neither cpu nor cuda, or cuda without a GPU that torch can use.
    """
    if device not in ("cpu", "cuda"):
        raise UsageError(Problem("--device", f"must be cpu or cuda, got {device!r}."))
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UsageError(Problem("--device", "torch finds no CUDA device.", "Use cpu."))


def print_json(content: Any) -> None:
    """The one JSON document of a run with --json; NaN and infinity, which JSON lacks, are null."""
    print(json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers_from: int = 1
) -> None:
    """A table for people; columns from `numbers_from` on are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < numbers_from else "right")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:  # a file or a pipe: no folding
        console.width = 10_000
    if title:  # a line of its own: rich would fold it to the table's width
        print(title)
    console.print(table)


def note(text: str, *, quiet: bool = False) -> None:
    """One line for people on stderr."""
    if not quiet:
        print(_visible(text), file=sys.stderr)


def problems(error: AlliageError) -> None:
    """Every problem on its own line on stderr."""
    for problem in error.problems:
        print(f"alliage: {_visible(str(problem))}", file=sys.stderr)
    if len(error.problems) > 1:
        print(f"alliage: {len(error.problems)} problems.", file=sys.stderr)


@contextmanager
def plug_in_warnings() -> Iterator[None]:
    """Broken plug-ins on lines of their own, without a place in the source."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, PlugInWarning):
                note(f"alliage: {message}")
            else:
                others(message, category, *place)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr: call the yielded function with (stage, done, of).

    Prints nothing with `quiet`, or where stderr is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, disable=quiet or not console.is_terminal,
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    with bar:
        yield show


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Like `progress`, for few long steps: a line for each, also where stderr is no terminal."""
    started = time.perf_counter()

    def show(what: str, done: int, total: int) -> None:
        note(f"[{done:>{len(str(total))}}/{total}] {time.perf_counter() - started:4.0f} s  {what}",
             quiet=quiet)  # fmt: skip

    yield show


def size(nbytes: float) -> str:
    """Bytes for people, in powers of ten.

    >>> size(1_340_000)
    '1.3 MB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    raise AssertionError


def size_in_bytes(text: str, option: str) -> int:
    """The number of bytes that a size such as 512MiB or 2GB means.

    >>> size_in_bytes("1.5kB", "--memory")
    1500

    Raises:
        UsageError: it is no size; names the `option`.
    """
    match = re.fullmatch(r"([\d.]+)\s*(B|[kKMGT]i?B?)?", text.strip())
    powers = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
    try:
        assert match is not None
        number, unit = float(match[1]), (match[2] or "").rstrip("B")
    except (AssertionError, ValueError):
        raise UsageError(Problem(option, f"{text!r} is no size.", "Write 512MiB.")) from None
    return int(number * (1024 if "i" in unit else 1000) ** powers[unit.rstrip("i").lower()])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | str) else str(value)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return _visible(str(value))


def _visible(text: str) -> str:
    """Text whose control characters are written out: names from files may steer the terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
