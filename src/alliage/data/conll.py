"""Tagged tokens: .conll (token TAB tag, IOB2 for entities) and .conllu (Universal Dependencies)."""

from __future__ import annotations

from pathlib import Path

from alliage.data.files import Row, read_lines
from alliage.data.task import is_iob2
from alliage.errors import AlliageError, Problem, nearest

# universaldependencies.org/u/pos
UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN",
    "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip


def read_conll(path: Path) -> list[Row]:
    """Sentences of a .conll file: one token and its tag a line, a blank line between sentences.

    Where tags are "O", "B-…" and "I-…", they must be IOB2: an entity starts with "B-".

    Raises:
        AlliageError: lines without a tag, tags that continue no entity; all at once.
    """
    sentences = _Sentences()
    problems = []
    for number, line in read_lines(path):
        if not line.strip():
            sentences.end()
            continue
        token, *tags = line.split("\t")
        if len(tags) == 1 and token and tags[0]:
            sentences.add(number, token, tags[0])
        else:
            problems.append(
                Problem(f"{path}, line {number}", f"expected token TAB tag, found {line!r}.")
            )
    rows = sentences.end()
    if not problems and is_iob2(tuple({tag for row in rows for tag in row.label})):
        problems += _broken_entities(path, rows)
    if problems:
        raise AlliageError(problems)
    return rows


def read_conllu(path: Path) -> list[Row]:
    """Sentences of a .conllu file with their universal parts of speech (FORM and UPOS).

    Ranges of contracted words ("1-2 du") and empty nodes ("8.1") are left out: their syntactic
    words are tagged.

    Raises:
        AlliageError: lines that have not ten columns, unknown tags; all at once.
    """
    sentences = _Sentences()
    problems = []
    for number, line in read_lines(path):
        if not line.strip():
            sentences.end()
            continue
        if line.startswith("#"):
            continue
        cells = line.split("\t")
        where = f"{path}, line {number}"
        if len(cells) != 10:
            problems.append(Problem(where, f"expected 10 columns, found {len(cells)}."))
        elif not cells[0].isdigit():
            continue
        elif cells[3] not in UPOS:
            problems.append(
                Problem(where, f"{cells[3]!r} is no UPOS tag.", nearest(cells[3], UPOS))
            )
        else:
            sentences.add(number, cells[1], cells[3])
    if problems:
        raise AlliageError(problems)
    return sentences.end()


class _Sentences:
    """Collects tokens into sentences."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._first = 0
        self._tokens: list[str] = []
        self._tags: list[str] = []

    def add(self, line: int, token: str, tag: str) -> None:
        """The next token of the sentence."""
        if not self._tokens:
            self._first = line
        self._tokens.append(token)
        self._tags.append(tag)

    def end(self) -> list[Row]:
        """End the sentence; returns all sentences so far."""
        if self._tokens:
            place = f"line {self._first}"
            self._rows.append(Row(place, tuple(self._tokens), tuple(self._tags)))
            self._tokens, self._tags = [], []
        return self._rows


def _broken_entities(path: Path, rows: list[Row]) -> list[Problem]:
    problems = []
    for row in rows:
        first = int(row.place.removeprefix("line "))
        before = "O"
        for offset, tag in enumerate(row.label):
            if tag.startswith("I-") and before[2:] != tag[2:]:
                problems.append(
                    Problem(
                        f"{path}, line {first + offset}",
                        f"{tag} follows {before}, but in IOB2 an entity starts with B-{tag[2:]}.",
                        "Convert the tags to IOB2.",
                    )
                )
            before = tag
    return problems
