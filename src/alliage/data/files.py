"""Files of examples: which there are, their lines, and what a reader makes of them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from alliage.errors import AlliageError, Problem

SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet", ".conll", ".conllu", ".npz")
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


class Row(NamedTuple):
    """One example as a file has it.

    Attributes:
        place: where it stands in the file, for errors: "line 12".
        inputs: as in `Example`; of an image in a file, its path or its bytes.
        label: the label's name, or one for each token; a number, the number of the right choice or
            a text in tasks without label names; nothing where it is hidden.
        domain: the part of the data that it belongs to, where the task tells.
    """

    place: str
    inputs: Any
    label: Any
    domain: str | None = None


# One example as a table has it: its place and its columns, or what is wrong with it.
Record = tuple[str, dict[str, Any] | Problem]


def suffix_of(path: Path) -> str | None:
    """The suffix that tells the format, below a trailing .gz; nothing for other files."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return suffix if suffix in SUFFIXES else None


def read_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file, from 1, without their ends.

    Args:
        path: the file; .gz is unpacked.
        encoding: by a name that Python knows; UTF-8, with or without a mark, by default.

    Raises:
        AlliageError: the file cannot be read, or a line is not in that encoding.
    """
    for number, line in raw_lines(path, encoding):
        yield number, line.rstrip("\r\n")


def raw_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """As `read_lines`, with the ends of the lines."""
    number = 0
    try:
        with _opened(path) as file:
            if encoding is not None:
                for number, text in enumerate(
                    io.TextIOWrapper(file, encoding, newline="\n"), start=1
                ):
                    yield number, text.removeprefix("\ufeff") if number == 1 else text
                return
            for number, line in enumerate(file, start=1):
                if number == 1:
                    _refuse_wide(path, line)
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x}"
        if encoding is None:
            where = f"{path}, line {number}"
            what = f"is not UTF-8: {byte} at {error.start}."
            fix = "Convert the file to UTF-8, or name its encoding in a YAML file (encoding: …)."
        else:
            where, what = f"{path}, after line {number}", f"is not {encoding}: {byte}."
            fix = "Name another encoding."
        raise AlliageError(Problem(where, what, fix)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise AlliageError(Problem(str(path), f"cannot be read: {error}.")) from None


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _refuse_wide(path: Path, line: bytes) -> None:
    """Refuse what two or four bytes encode, which would be read as UTF-8 with zeros between."""
    found = next((name for mark, name in _MARKS.items() if line.startswith(mark)), None)
    if found is None and b"\0" in line:
        found = "utf-16-le" if line[1:2] == b"\0" else "utf-16-be"
    if found is not None:
        raise AlliageError(
            Problem(
                str(path),
                f"expected UTF-8, found what looks like {found.upper()}.",
                f"Convert the file to UTF-8, or write encoding: {found} in a YAML file.",
            )
        )
