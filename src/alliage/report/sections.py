"""What the report shows, in which order, from the tables of a results folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alliage.evaluation.metrics import CALIBRATION, CALIBRATION_DETAILS
from alliage.report import findings
from alliage.report.calibration import calibration_errors, diagrams
from alliage.report.data_table import DataTable, forecast_table, interference_tables
from alliage.report.directed import directed
from alliage.report.distances import matrices, profiles
from alliage.report.figures.figure import Figure
from alliage.report.figures.heatmap import MODEL_LIMIT, heat_maps
from alliage.report.figures.inclusion import inclusion
from alliage.report.figures.map import maps
from alliage.report.figures.performance import scores_by_task, trade_offs
from alliage.report.figures.profile import layer_profiles
from alliage.report.figures.reliability import calibration_overview, reliability_diagrams
from alliage.report.figures.spectra import spectra, spectrum_curves
from alliage.report.findings import Finding
from alliage.report.model_table import ModelTable, model_table
from alliage.report.scores import (
    OTHER,
    QUALITY,
    role_rank,
    roles_of,
    scores_by_metric,
)
from alliage.report.words import is_distance, shared_prefix

if TYPE_CHECKING:
    import pandas as pd

CELL_LIMIT = 15_000  # cells of all heat maps, which bound the page's size


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, the figures and tables under it, and a sentence where there are none."""

    id: str
    title: str
    figures: tuple[Figure, ...]
    missing: str
    tables: tuple[DataTable, ...] = ()


@dataclass(frozen=True, slots=True)
class Content:
    """All of a report but its sources."""

    summary: tuple[Finding, ...]
    sections: tuple[Section, ...]
    models: ModelTable


def content(tables: Mapping[str, pd.DataFrame]) -> Content:
    """Work out the report.

    Args:
        tables: name -> rows, for every one of `alliage.studies.results.TABLES`; may be empty.
    """
    prefix = shared_prefix([*tables["scores"]["task"], *tables["reliability"]["task"]])
    tables = {name: _without(prefix, table) for name, table in tables.items()}
    models = tables["models"].drop_duplicates("model", keep="last")
    roles = roles_of(tables)
    scores = scores_by_metric(tables["scores"], roles)
    # Others may be better when lower: nothing is called best by them.
    main = scores[0] if scores and scores[0].metric in QUALITY else None
    found = matrices(tables["distances"])
    by_layer = profiles(tables["distances"])
    conflicts = interference_tables(tables["interference"])
    losses = forecast_table(tables["forecast"])
    singular, held = spectra(tables["spectra"]), directed(tables["inclusion"])
    binned = diagrams(tables["reliability"], tables["reliability_curves"])
    errors, origin = calibration_errors(scores, binned)
    summary = (
        findings.compared(found, roles, scores, prefix),
        findings.distance([matrix for matrix in found if is_distance(matrix.metric)]),
        *findings.inclusion(held),
        findings.merging(main),
        findings.pruning(main, models),
        findings.calibration(errors),
    )
    side = max((min(len(matrix.names), MODEL_LIMIT) for matrix in found), default=1)
    drawn = found[: max(1, CELL_LIMIT // side**2)]
    left_out = len(found) - len(drawn)
    apart = [one for one in drawn if is_distance(one.metric) and not one.negative]
    by_task = [one for one in scores if one.metric not in (*CALIBRATION, *CALIBRATION_DETAILS)]
    # Pruned and merged models first: they are what the reader came for.
    made = sorted(roles, key=lambda model: (roles[model] == OTHER, -role_rank(roles[model])))
    order = {model: rank for rank, model in enumerate(made)}
    sections = (
        Section(
            "geometry", "Geometry",
            _present(
                maps(apart, left_out, roles) if apart else None,
                heat_maps(drawn, left_out) if drawn else None,
                layer_profiles(by_layer) if by_layer else None,
                spectrum_curves(singular) if singular else None,
                inclusion(held) if held else None,
            ),
            "No distances in this folder; alliage compare --base BASE MODEL... -o writes them.",
            (*conflicts, *([losses] if losses else [])),
        ),
        Section(
            "scores", "Scores",
            _present(
                scores_by_task(by_task) if by_task else None,
                trade_offs(main, models) if main else None,
            ),
            "No scores in this folder; alliage evaluate MODEL --task TASK -o writes them.",
        ),
        Section(
            "calibration", "Calibration",
            _present(
                calibration_overview(errors, roles, order, origin) if errors else None,
                reliability_diagrams(binned, order) if binned else None,
            ),
            "No calibration in this folder; alliage evaluate MODEL --task TASK -o writes it.",
        ),
    )  # fmt: skip
    return Content(
        summary,
        tuple(_with_prefix(prefix, section) for section in sections),
        model_table(models, main, roles),
    )


def _without(prefix: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table with tasks named by what tells them apart."""
    if not prefix or "task" not in table:
        return table
    return table.assign(task=table["task"].str.removeprefix(prefix))


def _with_prefix(prefix: str, section: Section) -> Section:
    """The section with tasks' whole names in the data to save, which are joined to other tables."""
    figures = []
    for figure in section.figures:
        at = {index for index, column in enumerate(figure.data.columns) if column == "task"}
        rows = tuple(
            tuple(f"{prefix}{cell}" if index in at else cell for index, cell in enumerate(row))
            for row in figure.data.rows
        )
        figures.append(replace(figure, data=replace(figure.data, rows=rows)))
    return replace(section, figures=tuple(figures))


def _present(*figures: Figure | None) -> tuple[Figure, ...]:
    return tuple(figure for figure in figures if figure)
