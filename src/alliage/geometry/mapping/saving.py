"""Pictures as files: SVG, and the numbers behind each as CSV."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from alliage.errors import AlliageError, Problem, UsageError
from alliage.geometry.mapping.picture import Picture


def write_pictures(pictures: Iterable[tuple[str, Picture]], folder: str | Path) -> list[Path]:
    """Write pictures and their numbers.

    Args:
        pictures: under their names.
        folder: made if missing; files of the same names are replaced.

    Returns:
        the files, NAME.svg and NAME.csv for each picture.

    Raises:
        UsageError: the folder is a file.
        AlliageError: it cannot be written to.
    """
    home = Path(folder)
    if home.is_file():
        raise UsageError(Problem(str(home), "is a file; expected a folder for figures."))
    written = []
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures:
            table = picture.to_pandas()
            named = not isinstance(table.index, pd.RangeIndex)
            for suffix, text in (("svg", picture.svg()), ("csv", table.to_csv(index=named))):
                target = home / f"{name}.{suffix}"
                partial = home / f".{target.name}.{os.getpid()}"
                partial.write_text(text, encoding="utf-8", newline="\n")
                partial.replace(target)
                written.append(target)
    except OSError as error:
        raise AlliageError(
            Problem(str(home), f"cannot be written to: {error.strerror}.")
        ) from error
    return written
