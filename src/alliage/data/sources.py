"""What examples are read from: a file, or a folder of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from alliage.data import conll, images, tables
from alliage.data.columns import Columns
from alliage.data.files import Record, suffix_of
from alliage.data.task import Kind

LARGE = 2**25  # bytes of a file whose examples, as Python's objects, take some ten times as many
_UNPACKED = {".gz": 4, ".parquet": 4}  # bytes for each byte on disk, about


class Source(Protocol):
    """Examples by their columns.

    Attributes:
        where: for errors.
        folder: from which paths in it count.
        files: that it is read from, where they are the user's own.
        kind: the one kind of task that its format is for, where there is one.
    """

    @property
    def where(self) -> str: ...  # noqa: D102
    @property
    def folder(self) -> Path: ...  # noqa: D102
    @property
    def files(self) -> tuple[Path, ...]: ...  # noqa: D102
    @property
    def kind(self) -> Kind | None: ...  # noqa: D102

    def records(self) -> Iterator[Record]:
        """Its examples, one after the other.

        Raises:
            AlliageError: it cannot be read.
        """

    def declared(self, columns: Columns) -> tuple[str, ...]:
        """The labels that it declares itself, in order; nothing where it does not."""

    def stored_as(self) -> list[Any] | None:
        """Which source it is, and then what changes when it does.

        Nothing where its examples are held in memory, or none are there to hold.
        """


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file.

    Attributes:
        path: of any of the formats but .npz.
        encoding: of its text; UTF-8 where nothing is said.
        separator: of its columns; what its format has where nothing is said.
    """

    path: Path
    encoding: str | None = None
    separator: str | None = None

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """Itself."""
        return (self.path,)

    @property
    def folder(self) -> Path:
        """That it lies in."""
        return self.path.parent

    @property
    def kind(self) -> Kind | None:
        """Tagged tokens have formats of their own."""
        tagged = suffix_of(self.path) in (".conll", ".conllu")
        return "token-classification" if tagged else None

    def records(self) -> Iterator[Record]:
        """By its suffix."""
        suffix = suffix_of(self.path)
        if suffix == ".conll":
            return conll.read_conll(self.path, self.encoding, self.separator)
        if suffix == ".conllu":
            return conll.read_conllu(self.path, self.encoding)
        if suffix == ".csv":
            return tables.read_csv(self.path, self.encoding, self.separator)
        if suffix == ".parquet":
            return tables.read_parquet(self.path)
        reader = tables.read_jsonl if suffix == ".jsonl" else tables.read_tsv
        return reader(self.path, self.encoding)

    def declared(self, columns: Columns) -> tuple[str, ...]:
        """Universal parts of speech, and the classes that a Parquet file names."""
        if suffix_of(self.path) == ".conllu" and columns.label_column == "upos":
            return conll.UPOS
        if suffix_of(self.path) == ".parquet":
            return tables.declared_names(self.path).get(columns.label_column, ())
        return ()

    def stored_as(self) -> list[Any] | None:
        """Above a certain size, as the file system knows it."""
        now = self.path.stat()
        if now.st_size * _UNPACKED.get(self.path.suffix, 1) <= LARGE:
            return None
        return [
            str(self.path.resolve()), now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns,
            now.st_ctime_ns, self.encoding, self.separator,
        ]  # fmt: skip


@dataclass(frozen=True)
class ArchiveSource:
    """A .npz file of images, which is read as a whole."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """Itself."""
        return (self.path,)

    @property
    def folder(self) -> Path:
        """That it lies in."""
        return self.path.parent

    @property
    def kind(self) -> Kind:
        """Images."""
        return "image-classification"

    def records(self) -> Iterator[Record]:
        """Pixels and classes."""
        rows = zip(self._archive.images, self._archive.labels, strict=True)
        for number, (image, label) in enumerate(rows):
            yield f"image {number}", {"image": image, "label": label}

    def declared(self, _: Columns) -> tuple[str, ...]:
        """The names of all classes."""
        return self._archive.classes

    def stored_as(self) -> None:
        """Never: it is in memory as a whole."""

    @cached_property
    def _archive(self) -> images.Archive:
        return images.read_archive(self.path)


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of images, in a folder for each class; without those, their labels are hidden."""

    folder: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.folder)

    @property
    def files(self) -> tuple[Path, ...]:
        """Its images."""
        return tuple(self.folder / place for place, _ in self.records())

    @property
    def kind(self) -> Kind:
        """Images."""
        return "image-classification"

    def records(self) -> Iterator[Record]:
        """Paths of images, and their classes."""
        return images.read_folder(self.folder)

    def declared(self, _: Columns) -> tuple[str, ...]:
        """The names of its folders."""
        return images.class_folders(self.folder)

    def stored_as(self) -> None:
        """Never: paths are small, and images are read when they are asked for."""
