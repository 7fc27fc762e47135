"""The `alliage` command: its subcommands, and what becomes of errors."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Annotated

import typer

import alliage
from alliage.cli import console
from alliage.errors import AlliageError

# One module for each; the command's function has the module's name, "_" for "-".
COMMANDS = (
    "inspect", "compare", "forecast", "interference", "merge", "methods", "signs", "prune",
    "apply", "extract", "arithmetic", "tune", "evaluate", "calibrate", "statistics", "search",
    "report", "verify", "demo",
)  # fmt: skip

_TUNE_PACKAGES = ("accelerate", "peft", "PIL", "rouge_score", "seqeval", "sklearn", "transformers")

app = typer.Typer(
    name="alliage",
    help="Measure, merge, prune, tune and check fine-tuned models that share one ancestor.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"alliage {alliage.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


for _name in COMMANDS:
    _module = import_module(f"alliage.cli.{_name.replace('-', '_')}")
    _examples = "\n\n".join(f"  {line}" for line in _module.EXAMPLES)
    app.command(_name, epilog=f"Examples:\n\n{_examples}")(
        getattr(_module, _name.replace("-", "_"))
    )


def _leave(number: int, _frame: object) -> None:
    """Leave as after Ctrl-C: what nobody can go on with is removed on the way out."""
    raise SystemExit(128 + number)


def _print_notes(error: BaseException | None) -> None:
    """What was noted on an error, or on what led to it: that an interrupted run's work is kept."""
    while error is not None:
        for line in getattr(error, "__notes__", ()):
            console.note(f"alliage: {line}")
        error = error.__cause__ or error.__context__


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 usage or recipe, 3 a check said no."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        with console.plug_in_warnings():
            app()
    except AlliageError as error:
        console.problems(error)
        _print_notes(error)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _TUNE_PACKAGES:
            raise
        console.note(f"alliage: this needs {error.name}. Install it: pip install 'alliage[tune]'")
        sys.exit(1)
    except BrokenPipeError:  # the reader, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        console.note(f"alliage: {where}{error.strerror}.")
        _print_notes(error)
        sys.exit(1)
    except SystemExit as error:
        _print_notes(error)
        raise
    except KeyboardInterrupt as error:
        _print_notes(error)
        sys.exit(130)
