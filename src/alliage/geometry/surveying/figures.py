"""Which pictures are drawn of a survey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alliage.geometry.mapping.inclusion_graph import ENERGIES
from alliage.geometry.mapping.picture import Picture
from alliage.geometry.mapping.saving import write_pictures
from alliage.geometry.mapping.task_map import MAPS
from alliage.geometry.surveying.pictures import Pictures, is_distance


def save_pictures(survey: Pictures, folder: str | Path) -> list[Path]:
    """Draw everything that a survey of two models or more has the numbers for.

    As `write_pictures`.
    """
    return write_pictures(_pictures(survey), folder)


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
