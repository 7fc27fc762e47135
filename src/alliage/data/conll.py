"""Tagged tokens as records: .conll (columns by number) and .conllu (Universal Dependencies).

A record is a sentence: column -> one value for each token, and "lines" -> the lines they stand in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alliage.data.files import Record, read_lines
from alliage.errors import AlliageError, Problem, nearest

# universaldependencies.org/u/pos
UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN",
    "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
LINES = "lines"
_DOCUMENT = "-DOCSTART-"  # of CoNLL-2003: no sentence
_LONGEST_FILE = 200  # tokens of a file that may be one sentence


def read_conll(
    path: Path, encoding: str | None = None, separator: str | None = None
) -> Iterator[Record]:
    """Sentences of a .conll file: one token a line, a blank line between sentences.

    Columns are called "1", "2", ..., and "-1" for the last.

    Args:
        path: the file.
        encoding: UTF-8 by default.
        separator: TAB by default, or "whitespace".

    Raises:
        AlliageError: the file cannot be read, has no TAB, or no blank line between many tokens.
    """
    width = 0
    numbers: list[int] = []
    tokens: list[list[str]] = []
    ended = False

    def sentence() -> Iterator[Record]:
        if tokens and tokens[0][0] != _DOCUMENT:
            cells = enumerate(map(list, zip(*tokens, strict=True)), start=1)
            columns = {str(place): values for place, values in cells}
            yield f"line {numbers[0]}", columns | {"-1": columns[str(width)], LINES: list(numbers)}

    number = 0
    for number, line in read_lines(path, encoding):
        if not line.strip():
            ended = True
            yield from sentence()
            numbers, tokens = [], []
            continue
        cells = line.split() if separator == "whitespace" else line.split("\t")
        if not width and len(cells) == 1 and len(line.split()) > 1:
            fix = "Write a YAML file with separator: whitespace."
            raise AlliageError(Problem(f"{path}, line {number}", f"no TAB in {line!r}.", fix))
        width = width or len(cells)
        if len(cells) == width and all(cells):
            numbers.append(number)
            tokens.append(cells)
            continue
        what = f"expected token TAB tag, found {line!r}."
        if width != 2 or separator is not None:
            what = f"expected {width} columns, found {line!r}."
        yield f"line {number}", Problem(f"{path}, line {number}", what)
    if not ended and len(tokens) > _LONGEST_FILE:
        raise AlliageError(
            Problem(
                str(path),
                f"no blank line: one sentence of {len(tokens)} tokens.",
                "Write a blank line after each sentence.",
            )
        )
    yield from sentence()


def read_conllu(path: Path, encoding: str | None = None) -> Iterator[Record]:
    """Sentences of a .conllu file: its ten columns by name, and its comments ("# text = …").

    Ranges of contracted words ("1-2 du") and empty nodes ("8.1") are left out: their syntactic
    words are tagged. A file of other columns names them ("# global.columns = ID FORM …"). Ids that
    start again within a sentence are a problem: a blank line is missing.

    Raises:
        AlliageError: the file cannot be read.
    """
    before = 0  # the id of the last token
    fields: Sequence[str] = FIELDS
    comments: dict[str, Any] = {}
    numbers: list[int] = []
    tokens: list[list[str]] = []

    def sentence() -> Iterator[Record]:
        if tokens:
            cells = map(list, zip(*tokens, strict=True))
            columns = dict(zip(fields, cells, strict=True))
            yield f"line {numbers[0]}", comments | columns | {LINES: list(numbers)}

    for number, line in read_lines(path, encoding):
        if not line.strip():
            yield from sentence()
            before, comments, numbers, tokens = 0, {}, [], []
            continue
        if line.startswith("#"):
            key, equals, value = line[1:].partition("=")
            if key.strip() == "global.columns":
                fields = value.lower().split()
            elif equals:
                comments[key.strip()] = value.strip()
            continue
        cells = line.split("\t")
        where = f"{path}, line {number}"
        if len(cells) != len(fields):
            what = f"expected {len(fields)} columns, found {len(cells)}."
            yield f"line {number}", Problem(where, what)
            continue
        id_ = cells[fields.index("id")] if "id" in fields else ""
        if id_.isdecimal():
            if tokens and (int(id_) == 1 or int(id_) < before):
                fix = "Write a blank line between sentences."
                yield f"line {number}", Problem(where, f"id {id_} follows {before}.", fix)
            before = int(id_)
        if id_.isdecimal() or "id" not in fields:
            numbers.append(number)
            tokens.append(cells)
    yield from sentence()


def unknown_upos(where: str, lines: Sequence[int], tags: Sequence[str]) -> list[Problem]:
    """Tags of a sentence that are not universal parts of speech."""
    return [
        Problem(f"{where}, line {line}", f"{tag!r} is no UPOS tag.", nearest(tag, UPOS))
        for line, tag in zip(lines, tags, strict=True)
        if tag not in UPOS
    ]


def broken_entities(where: str, lines: Sequence[int], tags: Sequence[str]) -> list[Problem]:
    """Tags of a sentence that continue no entity; in IOB2 an entity starts with "B-"."""
    problems = []
    before = "O"
    for line, tag in zip(lines, tags, strict=True):
        if tag.startswith("I-") and before[2:] != tag[2:]:
            problems.append(
                Problem(
                    f"{where}, line {line}",
                    f"{tag} follows {before}, but in IOB2 an entity starts with B-{tag[2:]}.",
                    "Convert the tags to IOB2.",
                )
            )
        before = tag
    return problems
