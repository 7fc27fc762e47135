"""All pictures of a survey as files: SVG, and the numbers behind each as CSV."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from alliage.errors import AlliageError, Problem, UsageError
from alliage.geometry.mapping.inclusion_graph import ENERGIES
from alliage.geometry.mapping.picture import Picture
from alliage.geometry.mapping.pictures import Pictures, is_distance
from alliage.geometry.mapping.task_map import MAPS


def save_pictures(survey: Pictures, folder: str | Path) -> list[Path]:
    """Draw everything that a survey of two models or more has the numbers for.

    As `write_pictures`.
    """
    return write_pictures(_pictures(survey), folder)


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


def _pictures(survey: Pictures) -> Iterator[tuple[str, Picture]]:
    layers = {int(layer) for layer in survey[survey.metrics[0]]["layer"].values} - {-1}
    for metric in survey.metrics:
        means = survey[metric].mean("module").to_numpy()
        # A map or a tree needs every distance, and three models to say anything.
        if len(means) > 2 and np.isfinite(means).all() and is_distance(metric):
            for method in MAPS:
                yield f"map-{method}-{metric}", survey.map(metric, method)
            yield f"dendrogram-{metric}", survey.dendrogram(metric)
        yield f"heatmap-{metric}", survey.heatmap(metric)
        apart = ~np.eye(len(means), dtype=bool)
        if len(layers) > 1 and np.isfinite(means[apart]).any():
            yield f"profile-{metric}", survey.profile(metric)
        if metric in ENERGIES:
            yield f"inclusion-{metric}", survey.inclusion(metric)
    if "singular_values" in survey.spectra:
        yield "spectrum", survey.spectrum()
