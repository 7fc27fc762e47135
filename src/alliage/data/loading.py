"""From what a user writes to a task: a folder of splits, a YAML file, or a built-in name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from alliage import recipes
from alliage.data import digits, labels
from alliage.data.conll import UPOS, read_conll, read_conllu
from alliage.data.files import SUFFIXES, Row, suffix_of
from alliage.data.images import read_images
from alliage.data.tables import Columns, read_table
from alliage.data.task import SPLITS, Example, Kind, Task, hold_out
from alliage.errors import AlliageError, Problem, UsageError, nearest

_KINDS: Mapping[str, Kind] = {
    ".tsv": "sequence-classification",
    ".jsonl": "sequence-classification",
    ".conll": "token-classification",
    ".conllu": "token-classification",
    ".npz": "image-classification",
}


class ColumnNames(BaseModel):
    """Which columns of a table hold what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: tuple[str, ...] = Field(
        min_length=1, max_length=2, description="One column of texts, or two of pairs."
    )
    label: str = Field("label", description="The column of labels.")

    @field_validator("text", mode="before")
    @classmethod
    def _one(cls, text: Any) -> Any:
        return (text,) if isinstance(text, str) else text


class TaskFile(BaseModel):
    """A task described in YAML; paths count from the folder of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(None, description="For tables; the file's own by default.")
    kind: Kind = Field(description="What is labelled.")
    files: dict[str, tuple[str, ...]] = Field(
        description="Split (train, validation, test) -> one file, or several in a row."
    )
    columns: ColumnNames | None = Field(None, description="Of tables; by their names otherwise.")
    labels: tuple[str, ...] | dict[str, str] | None = Field(
        None, description="The labels in order, or label in the files -> its name, in order."
    )

    @field_validator("files", mode="before")
    @classmethod
    def _lists(cls, files: Any) -> Any:
        if not isinstance(files, dict):
            return files
        return {key: [file] if isinstance(file, str) else file for key, file in files.items()}

    @field_validator("labels", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {str(key): value for key, value in given.items()}
        return [str(label) for label in given] if isinstance(given, list) else given


def load_task(ref: str | Path) -> Task:
    """Load a labelled data set.

    Args:
        ref: a folder with train, validation and test files (.tsv, .jsonl, .conll, .conllu or
            .npz; all but the last may be gzipped), a YAML file (`TaskFile`), or "digits:NAME".
            Without a validation file, 10 % of train are cut off for it, at random with seed 0.

    Raises:
        UsageError: no such task, or a YAML file that is wrong.
        AlliageError: files that cannot be read or contradict each other; every problem.
    """
    if str(ref).startswith(digits.PREFIX):
        return digits.load(str(ref))
    path = Path(ref).expanduser()
    if path.is_dir():
        return _build(path.name, _find_splits(path), None, None)
    if path.suffix in (".yml", ".yaml") and path.is_file():
        return _from_yaml(path)
    known = [*digits.names(), *(item.name for item in path.parent.glob("*"))]
    raise UsageError(
        Problem(
            str(ref),
            "is no task: expected a folder, a YAML file or a built-in name.",
            nearest(path.name, known),
        )
    )


def _find_splits(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path)
        split = path.name.removesuffix(".gz").removesuffix(suffix or "")
        if suffix is not None and split in SPLITS:
            found.setdefault(split, []).append(path)
    problems = [
        Problem(
            f"{folder}: {split}",
            f"several files for one split: {', '.join(path.name for path in paths)}.",
            "Write a YAML file that names the ones to use.",
        )
        for split, paths in found.items()
        if len(paths) > 1
    ]
    if "train" not in found and "validation" not in found and "test" not in found:
        names = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
        problems.append(
            Problem(
                str(folder),
                f"no train, validation or test file ({', '.join(SUFFIXES)}; .gz), found {names}.",
                "Write a YAML file that names the files.",
            )
        )
    if problems:
        raise UsageError(problems)
    return found


def _from_yaml(path: Path) -> Task:
    file = recipes.parse(recipes.read_yaml(path), TaskFile, str(path))
    problems = [
        Problem(f"{path}: files.{split}", "is no split.", nearest(split, SPLITS))
        for split in file.files
        if split not in SPLITS
    ]
    splits = {split: [path.parent / name for name in names] for split, names in file.files.items()}
    for data in (data for files in splits.values() for data in files):
        suffix = suffix_of(data)
        if not data.is_file():
            near = nearest(data.name, [item.name for item in data.parent.glob("*")])
            problems.append(Problem(f"{path}: {data}", "does not exist.", near))
        elif suffix is None or _KINDS[suffix] != file.kind:
            fits = [ending for ending, kind in _KINDS.items() if kind == file.kind]
            problems.append(
                Problem(f"{path}: {data}", f"{file.kind} reads {', '.join(fits)} (or with .gz).")
            )
        elif file.columns is not None and suffix not in (".tsv", ".jsonl"):
            problems.append(Problem(f"{path}: columns", f"{data.name} is no table."))
    if not file.files:
        problems.append(Problem(f"{path}: files", "names no file."))
    if problems:
        raise UsageError(problems)
    columns = Columns(file.columns.text, file.columns.label) if file.columns else None
    return _build(file.name or path.stem, splits, columns, file.labels)


def _build(
    name: str,
    files: Mapping[str, Sequence[Path]],
    columns: Columns | None,
    stated: tuple[str, ...] | dict[str, str] | None,
) -> Task:
    """Read every split, settle the labels, and check all splits against them."""
    problems: list[Problem] = []
    rows: dict[Path, list[Row]] = {}
    declared: dict[Path, tuple[str, ...]] = {}
    paths = [path for split in SPLITS for path in files.get(split, ())]
    suffixes = {suffix_of(path) or "" for path in paths}
    kinds = {_KINDS[suffix] for suffix in suffixes}
    if len(kinds) > 1:
        raise UsageError(
            Problem(name, f"the splits are of different kinds: {', '.join(sorted(suffixes))}.")
        )
    for path in paths:
        try:
            rows[path], declared[path] = _read(path, columns)
        except AlliageError as error:
            problems += error.problems
            continue
        if not rows[path]:
            problems.append(Problem(str(path), "holds no example."))
    if problems:
        raise AlliageError(problems)
    if isinstance(stated, dict):
        rows = {path: labels.rename(found, stated) for path, found in rows.items()}
        declared = {
            path: tuple(stated.get(name, name) for name in names)
            for path, names in declared.items()
        }
        stated = tuple(dict.fromkeys(stated.values()))
    known = stated or declared[paths[0]]
    if not known:  # the first split that there is, train where there is one, says what labels exist
        first = next(files[split] for split in SPLITS if split in files)
        known = labels.collect(row for path in first for row in rows[path])
    for path in paths:
        if declared[path] and declared[path] != known:
            problems.append(
                Problem(str(path), f"expected the labels {known}, found {declared[path]}.")
            )
    if len(known) < 2:
        problems.append(
            Problem(str(paths[0]), f"one label only ({', '.join(known)}): nothing to decide.")
        )
    splits: dict[str, Sequence[Example]] = {
        split: tuple(
            example
            for path in files[split]
            for example in labels.encode(rows[path], known, path, problems)
        )
        for split in SPLITS
        if split in files
    }
    if problems:
        raise AlliageError(problems)
    if "train" in splits and "validation" not in splits:
        train, validation = hold_out(splits["train"])
        splits = {"train": train, "validation": validation} | {
            split: examples for split, examples in splits.items() if split == "test"
        }
    return Task(name, kinds.pop(), known, splits, tuple(paths))


def _read(path: Path, columns: Columns | None) -> tuple[list[Row], tuple[str, ...]]:
    """A file's rows, and the labels that it declares itself, if it does."""
    suffix = suffix_of(path)
    if suffix == ".npz":
        archive = read_images(path)
        return archive.rows, archive.labels
    if suffix == ".conll":
        return read_conll(path), ()
    if suffix == ".conllu":
        return read_conllu(path), UPOS
    return read_table(path, columns), ()
