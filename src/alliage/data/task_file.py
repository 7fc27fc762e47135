"""A task described in YAML: one form for each kind."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from alliage import recipes
from alliage.data.columns import (
    ImageColumns,
    NumberColumns,
    TagColumns,
    TextColumns,
    refuse_truth,
)
from alliage.data.prompts import ChoiceColumns, TargetColumns
from alliage.data.task import Kind
from alliage.errors import Problem, UsageError, nearest

Validation = Literal["official", "hold-out"]
Stated = tuple[str, ...] | dict[str, str] | None


class TaskFile(BaseModel):
    """What every kind of task has; paths count from the folder of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(default=None, description="For tables; the file's own by default.")
    kind: Kind = Field(description="What is asked.")
    files: dict[str, tuple[str, ...]] = Field(
        default={},
        description="Split (train, validation, test) -> one file, or several in a row. Of images "
        "also a folder, with a folder in it for each class.",
    )
    hub: str | None = Field(
        default=None, description="In place of files: org/name, org/name/config, either @revision."
    )
    splits: dict[str, str] = Field(
        default={}, description="Of a hub set: split -> its name there; by default the same."
    )
    encoding: str | None = Field(
        default=None, description="Of text files, as latin-1; UTF-8 by default."
    )
    separator: Literal[",", ";", "|", "\t", "whitespace"] | None = Field(
        default=None,
        description="Of the columns of .csv (seen from the header by default) and .conll (TAB by "
        "default, or whitespace).",
    )
    validation: Validation = Field(
        default="official",
        description="official: the validation split as it is, or 10 % of train where there is "
        "none. hold-out: 10 % of train in any case, and the official one takes the place of a "
        "test split without labels, as of GLUE's.",
    )

    @field_validator("files", mode="before")
    @classmethod
    def _lists(cls, files: Any) -> Any:
        if not isinstance(files, dict):
            return files
        return {key: [file] if isinstance(file, str) else file for key, file in files.items()}

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None and not codecs.lookup(encoding)._is_text_encoding:
                raise LookupError
        except LookupError:
            raise ValueError("no encoding of that name, as utf-8, latin-1 or utf-16") from None
        return encoding

    @model_validator(mode="after")
    def _one_source(self) -> TaskFile:
        if (self.hub is None) == (not self.files):
            raise ValueError("give either files or hub")
        if self.hub is None and self.splits:
            raise ValueError("splits goes with hub; files names its splits itself")
        return self


class LabelledFile(TaskFile):
    """A task whose answers have names."""

    labels: Stated = Field(
        default=None,
        description="The labels in order, or label in the files -> its name, in order.",
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        if isinstance(given, dict):
            refuse_truth([*given, *given.values()])
            return {str(key): value for key, value in given.items()}
        if isinstance(given, list):
            refuse_truth(given)
        return [str(label) for label in given] if isinstance(given, list) else given


class SequenceTaskFile(LabelledFile):
    """A label for each text or pair of texts."""

    kind: Literal["sequence-classification"]
    columns: TextColumns | None = Field(default=None, description="By their usual names otherwise.")


class TokenTaskFile(LabelledFile):
    """A tag for each token."""

    kind: Literal["token-classification"]
    columns: TagColumns | None = Field(default=None, description="By their usual names otherwise.")


class ImageTaskFile(LabelledFile):
    """A label for each image."""

    kind: Literal["image-classification"]
    columns: ImageColumns | None = Field(
        default=None, description="Of tables; by their usual names otherwise."
    )


class RegressionTaskFile(TaskFile):
    """A number for each text or pair of texts."""

    kind: Literal["regression"]
    columns: NumberColumns | None = Field(
        default=None, description="By their usual names otherwise."
    )


class ChoiceTaskFile(TaskFile):
    """One of several texts for each prompt."""

    kind: Literal["multiple-choice"]
    columns: ChoiceColumns | None = Field(
        default=None, description="By their usual names otherwise."
    )


class GenerationTaskFile(TaskFile):
    """A text for each source."""

    kind: Literal["text-generation"]
    columns: TargetColumns | None = Field(
        default=None, description="By their usual names otherwise."
    )


FORMS: Mapping[Kind, type[TaskFile]] = {
    "sequence-classification": SequenceTaskFile,
    "token-classification": TokenTaskFile,
    "image-classification": ImageTaskFile,
    "regression": RegressionTaskFile,
    "multiple-choice": ChoiceTaskFile,
    "text-generation": GenerationTaskFile,
}


def read_task_file(path: Path) -> TaskFile:
    """A task's YAML file, checked.

    Raises:
        UsageError: unknown keys or kinds, wrong values; all at once.
    """
    content = recipes.read_yaml(path)
    kind = content.get("kind") if isinstance(content, dict) else None
    form = next((form for name, form in FORMS.items() if name == kind), TaskFile)
    if isinstance(kind, str) and form is TaskFile:
        raise UsageError(Problem(f"{path}: {kind}", "is no kind of task.", nearest(kind, FORMS)))
    return recipes.parse(content, form, str(path))
