"""Schemas of tasks for language models: prompts, choices and targets.

A task becomes text through a template with its columns in it, as T0 and (IA)3 are trained
(arXiv:2110.08207, arXiv:2205.05638): "{premise} Question: {hypothesis} True or false?".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from string import Formatter
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from alliage.data.columns import (
    LABEL,
    Columns,
    is_missing,
    label_name,
    list_of,
    refuse_truth,
    text_of,
)
from alliage.errors import nearest

_PROMPTS = ("prompt", "question", "context", "premise", "text")
_ANSWERS = ("answer", LABEL, "answerKey")
_TARGETS = (
    ("source", "target"),
    ("document", "summary"),
    ("article", "highlights"),
    ("prompt", "completion"),
    ("dialogue", "summary"),
)


class ChoiceColumns(Columns):
    """A prompt, the texts that may follow it, and which one does."""

    usual: ClassVar[str] = (
        f"choices; expected choices, one of {', '.join(_PROMPTS)}, and one of {', '.join(_ANSWERS)}"
    )
    hidden: ClassVar[Any] = -1

    prompt: str | None = Field(default=None, description="The column of prompts.")
    template: str | None = Field(
        default=None, description="In place of prompt: a text with columns in it, as {premise}."
    )
    choices: str | tuple[str, ...] | dict[str, str] = Field(
        description="The column of lists of choices; or a column for each choice; or, where all "
        "examples have the same, value of the answer's column -> text."
    )
    answer: str = Field(
        default=LABEL, description="The column of the right one: number, letter or text."
    )
    first: int = Field(default=0, ge=0, le=1, description="The number of the first choice.")

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("choices"), dict):
            refuse_truth([*given["choices"], *given["choices"].values()])
            choices = {str(key): value for key, value in given["choices"].items()}
            return given | {"choices": choices}
        return given

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if self.prompt is None and self.template is None:
            raise ValueError("expected prompt or template")
        _check(self.prompt, self.template)
        if not isinstance(self.choices, str) and len(self.choices) < 2:
            raise ValueError("expected two choices or more")
        return self

    @classmethod
    def infer(cls, names: Collection[str]) -> Self | None:
        """A list called choices, with a prompt and an answer of usual names."""
        prompt = next((name for name in _PROMPTS if name in names), None)
        answer = next((name for name in _ANSWERS if name in names), None)
        if prompt is None or answer is None or "choices" not in names:
            return None
        return cls(prompt=prompt, choices="choices", answer=answer)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Those of the prompt, and of the choices where they differ."""
        columns = _columns(self.prompt, self.template)
        if isinstance(self.choices, dict):
            return columns
        return (*columns, *([self.choices] if isinstance(self.choices, str) else self.choices))

    @property
    def label_column(self) -> str:
        """The answer's."""
        return self.answer

    def inputs_of(self, record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        """The prompt and the choices."""
        return _filled(self.prompt, self.template, record), self._choices(record)

    def label_of(self, record: Mapping[str, Any]) -> int | None:
        """The number of the right choice, from 0."""
        name = label_name(self.answer, record.get(self.answer))
        if name is None:
            return None
        fixed = isinstance(self.choices, dict)
        choices = tuple(self.choices) if fixed else self._choices(record)
        if name in choices:
            return choices.index(name)
        if name == "-1":
            return -1
        number = int(name) - self.first if name.isdecimal() else _letter(name)
        if fixed or number is None or not 0 <= number < len(choices):
            near = nearest(name, choices)
            raise ValueError(f"column {self.answer!r}: {name!r} is none of the choices. {near}")
        return number

    def _choices(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        if isinstance(self.choices, dict):
            return tuple(self.choices.values())
        if isinstance(self.choices, tuple):
            return tuple(text_of(name, record[name]) for name in self.choices)
        value = record[self.choices]
        if isinstance(value, dict) and "text" in value:  # as ARC has them
            value = value["text"]
        found = [text_of(self.choices, item) for item in list_of(self.choices, value)]
        if len(found) < 2:
            raise ValueError(f"column {self.choices!r}: expected two choices or more.")
        return tuple(found)


class TargetColumns(Columns):
    """A source and the text to write for it."""

    usual: ClassVar[str] = "targets; expected text, or one of: " + "; ".join(
        map(" + ".join, _TARGETS)
    )
    hidden: ClassVar[Any] = None
    confident: ClassVar[bool] = False

    source: str | None = Field(
        default=None,
        description="The column of sources; without one, the target is modelled by itself.",
    )
    template: str | None = Field(
        default=None, description="In place of source: a text with columns in it, as {premise}."
    )
    target: str = Field(description="The column of texts to write.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _check(self.source, self.template)
        return self

    @classmethod
    def infer(cls, names: Collection[str]) -> Self | None:
        """A pair of usual names, or a text by itself."""
        found = next((pair for pair in _TARGETS if set(pair) <= set(names)), None)
        if found is not None:
            return cls(source=found[0], target=found[1])
        return cls(target="text") if "text" in names else None

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Those of the source."""
        return _columns(self.source, self.template)

    @property
    def label_column(self) -> str:
        """The target's."""
        return self.target

    def inputs_of(self, record: Mapping[str, Any]) -> tuple[str]:
        """The source, empty where there is none."""
        return (_filled(self.source, self.template, record),)

    def label_of(self, record: Mapping[str, Any]) -> str | None:
        """The target."""
        value = record.get(self.target)
        return None if is_missing(value) else text_of(self.target, value)


def _letter(name: str) -> int | None:
    return ord(name.upper()) - ord("A") if len(name) == 1 and name.isalpha() else None


def _check(column: str | None, template: str | None) -> None:
    if template is None:
        return
    if column is not None:
        raise ValueError("give either a column or a template")
    try:
        fields = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"template: {error}; a brace itself is written twice") from None
    if any(not name or set(".[") & set(name) or rest or mark for name, rest, mark in fields):
        raise ValueError("template: expected names of columns in braces, as {premise}")


def _columns(column: str | None, template: str | None) -> tuple[str, ...]:
    if template is None:
        return () if column is None else (column,)
    names = (name for _, name, _, _ in Formatter().parse(template) if name)
    return tuple(dict.fromkeys(names))


def _filled(column: str | None, template: str | None, record: Mapping[str, Any]) -> str:
    if template is None:
        return "" if column is None else text_of(column, record[column])
    return "".join(
        literal + (text_of(name, record[name]) if name else "")
        for literal, name, _, _ in Formatter().parse(template)
    )
