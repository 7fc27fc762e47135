"""Images with labels in numpy archives."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alliage.data.files import Row
from alliage.errors import AlliageError, Problem, nearest

_ARRAYS = ("images", "labels", "class_names")


class Archive(NamedTuple):
    """What a .npz file holds.

    Attributes:
        rows: the examples; inputs uint8 [h, w] or [h, w, 3].
        labels: the names of all classes, in order.
    """

    rows: list[Row]
    labels: tuple[str, ...]


def read_images(path: Path) -> Archive:
    """Read an archive of `images` uint8 [n, h, w] or [n, h, w, 3], `labels` [n], `class_names`.

    Raises:
        AlliageError: arrays that are missing or of another type or shape; all at once.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise AlliageError(Problem(str(path), f"is no readable numpy archive: {error}.")) from None
    missing = [
        Problem(str(path), f"no array {name!r}.", nearest(name, arrays))
        for name in _ARRAYS
        if name not in arrays
    ]
    if missing:
        raise AlliageError(missing)
    images, labels, names = (arrays[name] for name in _ARRAYS)
    problems = _problems(str(path), images, labels, names)
    if problems:
        raise AlliageError(problems)
    classes = tuple(map(str, names))
    rows = [
        Row(f"image {index}", image, classes[label])
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return Archive(rows, classes)


def _problems(where: str, images: Any, labels: Any, names: Any) -> list[Problem]:
    problems = []
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not grey_or_colour:
        problems.append(
            Problem(
                f"{where}: images",
                "expected uint8 [n, height, width] or [n, height, width, 3], "
                f"found {images.dtype} {list(images.shape)}.",
            )
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        problems.append(
            Problem(
                f"{where}: labels",
                f"expected {len(images)} integers, found {labels.dtype} {list(labels.shape)}.",
            )
        )
    elif len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        problems.append(
            Problem(
                f"{where}: labels",
                f"expected 0 to {len(names) - 1} for {len(names)} class names, "
                f"found {labels.min()} to {labels.max()}.",
            )
        )
    return problems
