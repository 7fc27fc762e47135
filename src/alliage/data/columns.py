"""Schemas of tasks with labels: which columns hold what, and what an example makes of them."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

# Column names that data sets use; the first set found is taken.
_TEXTS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("title", "description"),
    ("sentence",),
    ("text",),
    ("question",),
)
_TAGS = ("tags", "ner_tags", "pos_tags", "upos")
_IMAGES = ("image", "img")
LABEL = "label"


def _numbered(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Place = Annotated[str, BeforeValidator(_numbered)]


class Columns(BaseModel, ABC):
    """Which columns hold what; each kind of task has its own.

    Attributes:
        usual: the names under which columns are found, for errors.
        hidden: what stands for a label that is not told, as in GLUE's test sets, unless it is one
            of the labels of train.
        confident: whether answers come with a confidence.
        domain: as its description says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    usual: ClassVar[str]
    hidden: ClassVar[Any] = "-1"
    confident: ClassVar[bool] = True

    domain: _Place | None = Field(
        default=None,
        description="The column of domains, as genre or language, or of .conllu the name of a "
        "comment: calibration is then measured on each of them apart, too.",
    )

    @model_validator(mode="after")
    def _no_answer_as_domain(self) -> Self:
        if self.domain is not None and not self.confident:
            raise ValueError("domains are of calibration: such answers have no confidence")
        if self.domain == self.label_column:
            raise ValueError(f"{self.domain!r} is the column of what is to be answered, no domain")
        return self

    @classmethod
    @abstractmethod
    def infer(cls, names: Collection[str]) -> Self | None:
        """The columns by the names that data sets use; nothing where none fit."""

    @property
    @abstractmethod
    def input_columns(self) -> tuple[str, ...]:
        """The columns that must be there in every example."""

    @property
    @abstractmethod
    def label_column(self) -> str:
        """The column of what is to be answered."""

    @abstractmethod
    def inputs_of(self, record: Mapping[str, Any]) -> Any:
        """The inputs of an example, as `Row` has them.

        Raises:
            ValueError: what is wrong with a value.
        """

    def label_of(self, record: Mapping[str, Any]) -> Any:
        """The label of an example, as `Row` has it; nothing where there is none.

        Raises:
            ValueError: what is wrong with the value.
        """
        return label_name(self.label_column, record.get(self.label_column))

    def domain_of(self, record: Mapping[str, Any]) -> str | None:
        """The domain of an example, numbers as JSON writes them; nothing where none are told.

        Raises:
            ValueError: neither a text nor a whole number.
        """
        if self.domain is None:
            return None
        value = record[self.domain]
        try:
            name = label_name(self.domain, value)
        except ValueError:
            name = None
        if name is None:
            raise ValueError(f"column {self.domain!r}: expected a domain, found {value!r}.")
        return name


class TextColumns(Columns):
    """A text, or a pair of texts, and its label."""

    usual: ClassVar[str] = "texts; expected one of: " + "; ".join(map(" + ".join, _TEXTS))

    text: str = Field(description="The column of texts, or of the first of a pair.")
    pair: str | None = Field(default=None, description="The column of the second texts.")
    label: str = Field(default=LABEL, description="The column of labels.")

    @classmethod
    def infer(cls, names: Collection[str]) -> Self | None:
        """The first known set of text columns."""
        found = next((texts for texts in _TEXTS if set(texts) <= set(names)), None)
        return cls(text=found[0], pair=found[1] if len(found) > 1 else None) if found else None

    @property
    def input_columns(self) -> tuple[str, ...]:
        """One column, or two."""
        return (self.text,) if self.pair is None else (self.text, self.pair)

    @property
    def label_column(self) -> str:
        """As given."""
        return self.label

    def inputs_of(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """One text, or two."""
        return tuple(text_of(name, record[name]) for name in self.input_columns)


class NumberColumns(TextColumns):
    """A text, or a pair of texts, and its number."""

    hidden: ClassVar[Any] = -1.0
    confident: ClassVar[bool] = False

    label: str = Field(default=LABEL, description="The column of numbers.")

    def label_of(self, record: Mapping[str, Any]) -> float | None:
        """A finite number."""
        value = record.get(self.label)
        if is_missing(value):
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"column {self.label!r}: expected a number, found {value!r}.")
        return number


class TagColumns(Columns):
    """A sentence split into tokens, and a tag for each."""

    usual: ClassVar[str] = "tokens and tags; expected tokens and one of: " + ", ".join(_TAGS)

    tokens: _Place = Field(
        description="The column of tokens. Of .conll its number, from 1, or -1 for the last; of "
        ".conllu its name: form, lemma, …"
    )
    tags: _Place = Field(
        description="The column of tags. Of .conllu also a key of a column: feats.Number, where "
        "tokens without it are tagged _."
    )

    @classmethod
    def infer(cls, names: Collection[str]) -> Self | None:
        """FORM and UPOS, the two columns of .conll, or lists of usual names."""
        if {"form", "upos"} <= set(names):
            return cls(tokens="form", tags="upos")
        if "1" in names and "3" not in names:
            return cls(tokens="1", tags="2")
        tags = next((tags for tags in _TAGS if tags in names), None)
        return cls(tokens="tokens", tags=tags) if tags and "tokens" in names else None

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The tokens."""
        return (self.tokens,)

    @property
    def label_column(self) -> str:
        """The tags, without a key."""
        return self.tags.partition(".")[0]

    def inputs_of(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """One token or more."""
        tokens = list_of(self.tokens, record[self.tokens])
        if not tokens:
            raise ValueError(f"column {self.tokens!r}: expected tokens, found none.")
        return tuple(text_of(self.tokens, token) for token in tokens)

    def label_of(self, record: Mapping[str, Any]) -> tuple[str, ...] | None:
        """One tag for each token."""
        column, _, key = self.tags.partition(".")
        value = record.get(column)
        if value is None:
            return None
        cells = list_of(column, value)
        tags = [label_name(column, _value_of(key, cell) if key else cell) for cell in cells]
        known = tuple(tag for tag in tags if tag is not None)
        if cells and not known:
            return None
        count = len(record[self.tokens])
        if len(known) != count:
            raise ValueError(f"column {self.tags!r}: {len(known)} tags for {count} tokens.")
        return known


class ImageColumns(Columns):
    """An image and its label."""

    usual: ClassVar[str] = "images; expected one of: " + ", ".join(_IMAGES)

    image: str = Field(
        default="image", description="The column of images: paths from the file's folder, or bytes."
    )
    label: str = Field(default=LABEL, description="The column of labels.")

    @classmethod
    def infer(cls, names: Collection[str]) -> Self | None:
        """By the name of the image's column."""
        found = next((name for name in _IMAGES if name in names), None)
        return cls(image=found) if found else None

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The image."""
        return (self.image,)

    @property
    def label_column(self) -> str:
        """As given."""
        return self.label

    def inputs_of(self, record: Mapping[str, Any]) -> Any:
        """The path or the bytes of a file, or pixels."""
        value = record[self.image]
        if isinstance(value, dict):  # as `datasets` stores them
            value = value.get("bytes") or value.get("path")
        if value is None or not isinstance(value, str | bytes | np.ndarray):
            raise ValueError(f"column {self.image!r}: expected the path or the bytes of an image.")
        return value


def refuse_truth(given: Iterable[Any]) -> None:
    """Refuse truth values where a YAML file should have texts.

    Raises:
        ValueError: there is one.
    """
    if any(isinstance(value, bool) for value in given):
        raise ValueError("yes, no, true and false are no texts in YAML: write them in quotes")


def label_name(column: str, value: Any) -> str | None:
    """A label's name, numbers and truth values as JSON writes them; nothing where there is none.

    Raises:
        ValueError: neither a text nor a whole number.
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():  # as tables with gaps store whole numbers
        value = int(value)
    if isinstance(value, bool | int):
        return json.dumps(value)
    raise ValueError(f"column {column!r}: expected a label, found {value!r}.")


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(column: str, value: Any) -> str:
    """A value that must be a text.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str):
        return value
    raise ValueError(f"column {column!r}: expected text, found {value!r}.")


def list_of(column: str, value: Any) -> list[Any]:
    """A value that must be a list.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, list | tuple):
        return list(value)
    raise ValueError(f"column {column!r}: expected a list, found {value!r}.")


def _value_of(key: str, cell: str) -> str:
    """A value of CoNLL-U's "Key=Value|Key=Value"; "_" where there is none."""
    pairs = (pair.partition("=") for pair in cell.split("|"))
    return next((value for name, _, value in pairs if name == key), "_")
