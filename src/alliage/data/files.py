"""Files of examples: which there are, their lines, and what a reader makes of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alliage.errors import AlliageError, Problem

SUFFIXES = (".tsv", ".jsonl", ".conll", ".conllu", ".npz")


class Row(NamedTuple):
    """One example as a file has it.

    Attributes:
        place: where it stands in the file, for errors: "line 12".
        inputs: as in `Example`.
        label: the label's name, or one for each token.
    """

    place: str
    inputs: Any
    label: Any


def suffix_of(path: Path) -> str | None:
    """The suffix that tells the format, below a trailing .gz; nothing for other files."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return suffix if suffix in SUFFIXES else None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, from 1, without their ends; .gz is unpacked.

    Raises:
        AlliageError: the file cannot be read, or a line is not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise AlliageError(
            Problem(
                f"{path}, line {number}",
                f"is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}.",
                "Convert the file to UTF-8.",
            )
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise AlliageError(Problem(str(path), f"cannot be read: {error}.")) from None
