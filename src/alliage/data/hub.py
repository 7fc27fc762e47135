"""Data sets of the hub, through Hugging Face's `datasets`, which keeps them on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alliage.data import sources
from alliage.data.columns import Columns
from alliage.data.files import Record
from alliage.data.tables import named
from alliage.data.task import SPLITS
from alliage.errors import AlliageError, Problem, UsageError, nearest

PREFIX = "hub:"
_BATCH = 1000  # examples


def load_splits(ref: str, wanted: Mapping[str, str], where: str) -> dict[str, HubSource]:
    """Download the splits of a data set, or find them in the cache of `datasets`.

    Args:
        ref: org/name or org/name/config, either with @revision; no data set's code is run.
        wanted: split -> its name there; train, validation and test by default.
        where: for errors.

    Raises:
        UsageError: no such data set, configuration or split.
        AlliageError: it cannot be reached, or `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise AlliageError(
            Problem(where, "needs the package datasets.", "pip install 'alliage[tune]'")
        ) from None
    path, _, revision = ref.partition("@")
    *name, config = path.split("/") if path.count("/") > 1 else (path, None)
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset("/".join(name), config, revision=revision or None)
    except (ValueError, RuntimeError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UsageError(Problem(where, f"{str(error).splitlines()[0]}")) from None
    except (OSError, datasets.exceptions.DatasetsError) as error:
        what = f"cannot be loaded: {str(error).splitlines()[0]}"
        raise AlliageError(Problem(where, what)) from None
    finally:
        if shown:
            datasets.enable_progress_bars()
    names = wanted or {split: split for split in SPLITS if split in loaded}
    problems = [
        Problem(f"{where}: {split}", f"no split {name!r}.", nearest(name, loaded))
        for split, name in names.items()
        if name not in loaded
    ]
    if not names:
        fix = "Write a YAML file with hub and splits."
        what = f"no train, validation or test split, found {', '.join(loaded)}."
        problems.append(Problem(where, what, fix))
    if problems:
        raise UsageError(problems)
    return {
        split: HubSource(f"{where}: {name}", _raw(loaded[name])) for split, name in names.items()
    }


@dataclass(frozen=True, slots=True)
class HubSource:
    """One split of a data set.

    Attributes:
        where: the data set and the split's name there, for errors.
        split: a `datasets.Dataset`.
    """

    where: str
    split: Any

    @property
    def folder(self) -> Path:
        """Images are whole paths, or bytes."""
        return Path()

    @property
    def files(self) -> tuple[Path, ...]:
        """None: `datasets` keeps its own."""
        return ()

    @property
    def kind(self) -> None:
        """None: its columns tell."""

    def records(self) -> Iterator[Record]:
        """Rows, with names for the numbers of classes."""
        names = {column: self._names(column) for column in self.split.column_names}
        number = 0
        for batch in self.split.iter(_BATCH):
            for values in zip(*batch.values(), strict=True):
                number += 1
                record = dict(zip(batch, values, strict=True))
                yield (
                    f"row {number}",
                    {column: named(value, names[column]) for column, value in record.items()},
                )

    def declared(self, columns: Columns) -> tuple[str, ...]:
        """The names of the classes."""
        return self._names(columns.label_column)

    def stored_as(self) -> list[Any] | None:
        """Above a certain size on disk, as `datasets` knows it."""
        large = self.split.data.nbytes > sources.LARGE
        return [self.where, self.split._fingerprint] if large else None

    def _names(self, column: str) -> tuple[str, ...]:
        feature = self.split.features.get(column)
        return tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _raw(split: Any) -> Any:
    """A split whose images stay as they are stored."""
    import datasets

    for column, feature in split.features.items():
        if isinstance(feature, datasets.Image):
            split = split.cast_column(column, datasets.Image(decode=False))
    return split
