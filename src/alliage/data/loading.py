"""From what a user writes to a task: a folder, a YAML file, a hub set, or a built-in name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alliage.data import digits, hub, labels, parts
from alliage.data.columns import Columns
from alliage.data.files import SUFFIXES, suffix_of
from alliage.data.parts import Part
from alliage.data.reading import first_record
from alliage.data.schemas import infer_columns, infer_kind
from alliage.data.sources import ArchiveSource, FileSource, FolderSource, Source
from alliage.data.task import SPLITS, Example, Kind, Task, hold_out
from alliage.data.task_file import LabelledFile, TaskFile, Validation, read_task_file
from alliage.errors import AlliageError, Problem, UsageError, nearest

_YAML = (".yml", ".yaml")
_NAMED: tuple[Kind, ...] = (
    "sequence-classification",
    "token-classification",
    "image-classification",
)


def load_task(ref: str | Path, *, validation: Validation | None = None) -> Task:
    """Load a data set with a question.

    Args:
        ref: a folder with train, validation and test files (.tsv, .csv, .jsonl, .parquet, .conll,
            .conllu or .npz; text may be gzipped) or folders of images; a YAML file
            (`task_file.TaskFile`); "hub:org/name", "hub:org/name/config", either with @revision;
            or "digits:NAME".
        validation: "official": the validation split as it is; without one, 10 % of train are cut
            off for it, at random with seed 0. "hold-out": they are cut off in any case, and the
            official validation split takes the place of a test split whose labels nobody knows,
            as of GLUE's (Fosse 2024). By default what a YAML file says, or official.

    Returns:
        a task of the kind that its columns speak for (`schemas.infer_kind`) where no YAML file
        says which; its larger files (32 MiB and more) are read from disk as they are indexed.

    Raises:
        UsageError: no such task, or a YAML file that is wrong.
        AlliageError: files that cannot be read or contradict each other; every problem.
    """
    if str(ref).startswith(digits.PREFIX):
        return digits.load(str(ref))
    if str(ref).startswith(hub.PREFIX):
        name = str(ref).removeprefix(hub.PREFIX)
        splits = hub.load_splits(name, {}, str(ref))
        sources = {split: [source] for split, source in splits.items()}
        return _build(name.partition("@")[0], None, sources, None, validation)
    path = Path(ref).expanduser()
    if path.is_dir():
        return _build(path.name, None, _find_splits(path), None, validation)
    if path.suffix in _YAML and path.is_file():
        file = read_task_file(path)
        return _build(file.name or path.stem, file, _sources(path, file), file.kind, validation)
    beside = (item for item in path.parent.glob("*") if item.is_dir() or item.suffix in _YAML)
    known = [*digits.names(), *(item.name for item in beside if item.name[0] != ".")]
    raise UsageError(
        Problem(
            str(ref),
            "is no task: expected a folder, a YAML file, hub:org/name or a built-in name.",
            nearest(path.name, known),
        )
    )


def _find_splits(folder: Path) -> dict[str, list[Source]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path) if path.is_file() else ""
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
    if not found:
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
    return {split: [_source(path, None)] for split, (path,) in found.items()}


def _sources(path: Path, file: TaskFile) -> dict[str, list[Source]]:
    """What a YAML file names, each seen to be there and to fit."""
    problems = [
        Problem(f"{path}: {key}.{split}", "is no split.", nearest(split, SPLITS))
        for key, splits in (("files", file.files), ("splits", file.splits))
        for split in splits
        if split not in SPLITS
    ]
    if file.hub is not None and not problems:
        found = hub.load_splits(file.hub, file.splits, hub.PREFIX + file.hub)
        return {split: [source] for split, source in found.items()}
    splits = {split: [path.parent / name for name in names] for split, names in file.files.items()}
    for data in (data for files in splits.values() for data in files):
        if not data.exists():
            near = nearest(data.name, [item.name for item in data.parent.glob("*")])
            problems.append(Problem(f"{path}: {data}", "does not exist.", near))
        else:
            problems += [Problem(f"{path}: {key}", what) for key, what in _misfits(data, file)]
    if problems:
        raise UsageError(problems)
    return {split: [_source(data, file) for data in files] for split, files in splits.items()}


def _misfits(data: Path, file: TaskFile) -> list[tuple[str, str]]:
    """The keys of a YAML file that one of its files cannot follow, and why."""
    suffix = "" if data.is_dir() else suffix_of(data)
    if suffix is None:
        return [("files", f"{data.name} is none of {', '.join(SUFFIXES)} (text also with .gz).")]
    kind = _source(data, file).kind
    found = []
    if kind not in (None, file.kind) and suffix != ".conllu":  # its comments may label sentences
        found.append(("kind", f"{data.name} is for {kind}, not for {file.kind}."))
    if getattr(file, "columns", None) is not None and suffix in ("", ".npz"):
        found.append(("columns", f"{data.name} is no table."))
    if file.encoding is not None and suffix in ("", ".npz", ".parquet"):
        found.append(("encoding", f"{data.name} is no text."))
    fits = {".csv": (",", ";", "|", "\t"), ".conll": ("\t", "whitespace")}.get(suffix, ())
    if file.separator is not None and file.separator not in fits:
        found.append(("separator", f"{data.name} is not separated by {file.separator!r}."))
    return found


def _source(path: Path, file: TaskFile | None) -> Source:
    if path.is_dir():
        return FolderSource(path)
    if suffix_of(path) == ".npz":
        return ArchiveSource(path)
    return FileSource(path, file.encoding, file.separator) if file else FileSource(path)


def _build(
    name: str,
    file: TaskFile | None,
    sources: Mapping[str, Sequence[Source]],
    kind: Kind | None,
    validation: Validation | None,
) -> Task:
    """Read every split, settle the labels, and check all splits against them."""
    sources = {split: sources[split] for split in SPLITS if split in sources}
    notes = []
    if kind is None:
        kind = _common_kind(name, sources)
        if kind == "regression":
            what = "its labels are decimal numbers: read as regression."
            fix = "If they are classes, write a YAML file with kind: sequence-classification."
            notes.append(Problem(name, what, fix))
    stated = file.labels if isinstance(file, LabelledFile) else None
    found = _read(sources, kind, getattr(file, "columns", None), stated or ())
    known: tuple[str, ...] = ()
    index = None
    if kind in _NAMED:
        known, index, problems = labels.settle(found, stated)
        problems += _undecided(name, kind, known, found)
        if problems:
            raise AlliageError(problems)
    splits = {
        split: parts.chained([part.examples(index) for part in read])
        for split, read in found.items()
    }
    notes += [
        Problem(part.where, "hides its labels: it cannot be scored.")
        for read in found.values()
        for part in read
        if part.hides
    ]
    hidden = {split for split, read in found.items() if any(part.hides for part in read)}
    wanted = validation or (file.validation if file is not None else "official")
    splits = _validated(name, splits, hidden, wanted, notes)
    files = tuple(file for each in sources.values() for source in each for file in source.files)
    return Task(name, kind, known, splits, files, tuple(notes))


def _common_kind(name: str, sources: Mapping[str, Sequence[Source]]) -> Kind:
    """The kind of task that the first split speaks for, and no other against."""
    each = [source for split in sources.values() for source in split]
    fixed = {source.kind: source.where for source in each if source.kind is not None}
    if len(fixed) > 1 or (fixed and any(source.kind is None for source in each)):
        names = ", ".join(source.where for source in each)
        raise UsageError(
            Problem(
                name,
                f"the splits are of different kinds: {names}.",
                "Write a YAML file that says which kind.",
            )
        )
    for source in () if fixed else each:
        with contextlib.suppress(AlliageError):  # which reading it will say
            others = (record for _, record in source.records() if isinstance(record, dict))
            return infer_kind(first_record(source), others)
    return next(iter(fixed), "sequence-classification")


def _read(
    sources: Mapping[str, Sequence[Source]],
    kind: Kind,
    stated: Columns | None,
    labels: Iterable[str],
) -> dict[str, list[Part]]:
    """What every source of every split holds, or every problem of all."""
    found: dict[str, list[Part]] = {split: [] for split in sources}
    problems: list[Problem] = []
    known: set[str | None] = set(labels)
    for split, each in sources.items():
        for source in each:
            try:
                columns = stated or infer_columns(kind, first_record(source), source.where)
                part = parts.read_part(source, kind, columns, known, may_hide=split != "train")
                found[split].append(part)
                if not part.hides:
                    known |= part.labels.places.keys()
            except AlliageError as error:
                problems += error.problems
        told = {part.hides for part in found[split]}
        if len(told) > 1:
            hidden = next(part.where for part in found[split] if part.hides)
            problems.append(Problem(hidden, f"hides its labels, other files of {split} do not."))
    if problems:
        raise AlliageError(problems)
    return found


def _undecided(
    name: str, kind: Kind, known: Sequence[str], found: Mapping[str, Sequence[Part]]
) -> list[Problem]:
    """That there is nothing to decide: one label only, or none."""
    where = next(part.where for read in found.values() for part in read)
    if not known:
        return [Problem(name, "no split tells its labels.", "Name them in a YAML file.")]
    train = found.get("train", ())
    occurring = {label for part in train for label in part.labels.names()}
    if len(known) > 1 and (len(occurring) != 1 or kind == "token-classification"):
        return []
    only = known if len(known) == 1 else occurring
    return [Problem(where, f"one label only ({', '.join(only)}): nothing to decide.")]


def _validated(
    name: str,
    splits: dict[str, Sequence[Example]],
    hidden: set[str],
    wanted: Validation,
    notes: list[Problem],
) -> dict[str, Sequence[Example]]:
    """The splits with one for validation, cut from train where it must be."""
    if "train" not in splits or (wanted == "official" and "validation" in splits):
        return splits
    if "validation" in splits:
        if "test" in splits and "test" not in hidden:
            what = "has a test split with labels: its validation split is not needed for one."
            raise UsageError(Problem(f"{name}: validation: hold-out", what, "Leave it out."))
        splits = splits | {"test": splits["validation"]}
        notes.append(Problem(f"{name}: test", "is the official validation split."))
    train, validation = hold_out(splits["train"], where=f"{name}: train")
    notes.append(
        Problem(f"{name}: validation", f"{len(validation)} examples cut from train, at random.")
    )
    rest = {split: examples for split, examples in splits.items() if split == "test"}
    return {"train": train, "validation": validation} | rest
