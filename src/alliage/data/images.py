"""Images with labels: numpy archives, folders of image files, and images that tables hold."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alliage.data.files import Record
from alliage.errors import AlliageError, Problem, nearest

_ARRAYS = ("images", "labels", "class_names")
_FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("CMYK", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr", "LAB", "HSV")


class Archive(NamedTuple):
    """What a .npz file holds.

    Attributes:
        images: uint8 [n, h, w] or [n, h, w, 3].
        labels: the name of each one's class.
        classes: the names of all classes, in order.
    """

    images: Any
    labels: list[str]
    classes: tuple[str, ...]


def read_archive(path: Path) -> Archive:
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
    return Archive(images, [classes[label] for label in labels], classes)


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


def class_folders(folder: Path) -> tuple[str, ...]:
    """The classes of a folder of images: its sub-folders by name; none where labels are hidden.

    Raises:
        AlliageError: images beside the sub-folders, which have no class.
    """
    names = sorted(item.name for item in folder.iterdir() if item.is_dir())
    beside = [item.name for item in sorted(folder.iterdir()) if _is_image(item)]
    if names and beside:
        what = f"{len(beside)} images beside the folders of classes, as {beside[0]}."
        raise AlliageError(Problem(str(folder), what, "Move each to the folder of its class."))
    return tuple(names)


def read_folder(folder: Path) -> Iterator[Record]:
    """The images of a split, by class and path.

    Raises:
        AlliageError: as `class_folders`.
    """
    for name in class_folders(folder) or (None,):
        for path in sorted((folder / (name or "")).rglob("*")):
            if _is_image(path):
                place = str(path.relative_to(folder))
                yield place, {"image": place, "label": name}


def check_image(image: str | bytes, folder: Path) -> str | bytes:
    """See that an image can be read, by its head alone.

    Args:
        image: the bytes of a file, or its path from `folder`.
        folder: of the file that names it.

    Returns:
        the image, its path made whole.

    Raises:
        ValueError: it is not there, no image, or of more than 8 bits a channel.
    """
    from PIL import Image

    path = str(folder / image) if isinstance(image, str) else ""
    try:
        with Image.open(path or io.BytesIO(image)) as opened:  # type: ignore[arg-type]
            mode = opened.mode
    except FileNotFoundError:
        raise ValueError(f"there is no image {path}.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"is no readable image: {error}.") from None
    if mode not in _GREY + _COLOUR:
        raise ValueError(f"expected 8 bits a channel, found pixels of mode {mode}.")
    return path or image


def decode(image: str | bytes) -> Any:
    """The pixels of an image, uint8 [h, w] grey or [h, w, 3] colour, as its camera held it.

    Raises:
        AlliageError: the file is damaged beyond its head.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            upright = ImageOps.exif_transpose(opened)
            return np.asarray(upright.convert("L" if upright.mode in _GREY else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        where = "image" if isinstance(image, bytes) else image
        raise AlliageError(Problem(where, f"is no readable image: {error}.")) from None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _FORMATS and not path.name.startswith(".") and path.is_file()
