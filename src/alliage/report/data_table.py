"""Plain tables of numbers, each with a sentence first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alliage.geometry.interference.words import percent
from alliage.report.runs import Run, by_run
from alliage.report.words import count, number

if TYPE_CHECKING:
    import pandas as pd

ROW_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell, and the number that it is sorted by, or None for words."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table that can be sorted by each of its columns.

    Attributes:
        id: unique in the page.
        title: one line.
        sentences: what to see in it.
        columns: headings, and whether numbers stand below.
        rows: cells.
        left_out: how many more rows there are.
    """

    id: str
    title: str
    sentences: tuple[str, ...]
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int


def data_table(
    identifier: str, title: str, sentences: tuple[str, ...], frame: pd.DataFrame
) -> DataTable:
    """A table of a frame's columns, under their names; numbers with three significant figures."""
    numeric = {name: frame[name].dtype.kind in "iuf" for name in frame.columns}
    rows = tuple(
        tuple(
            _number(value) if numeric[name] else Cell(str(value))
            for name, value in zip(frame.columns, row, strict=True)
        )
        for row in frame.head(ROW_LIMIT).itertuples(index=False, name=None)
    )
    columns = tuple((str(name), of_numbers) for name, of_numbers in numeric.items())
    return DataTable(identifier, title, sentences, columns, rows, max(0, len(frame) - ROW_LIMIT))


def interference_tables(table: pd.DataFrame) -> list[DataTable]:
    """Sign conflict and overlap of all models together and of each pair, by the share kept.

    Args:
        table: rows of the results table "interference".

    Returns:
        one table for each run.
    """
    rows = table[(table["by"] == "model") & (table["step"] == "")]
    return [_interference(run, number) for number, run in enumerate(by_run(rows), 1)]


def _interference(run: Run, number_of_run: int) -> DataTable:
    whole = run.rows
    most = int(whole["models"].max())
    every = f"all {count(most, 'model')}"
    few = "any " + whole["models"].astype(str) + f" of {most}, mean"
    pairs = whole["first"] + " – " + whole["second"]
    label = few.where(whole["models"] < most, every).where(whole["first"] == "", pairs)
    whole = whole.assign(models=label)
    wide = whole.pivot(index=["models", "top_k"], columns="measure", values="value")
    wide = wide.reindex(columns=[name for name in _INTERFERENCE if name in wide.columns])
    frame = wide.rename(columns=_INTERFERENCE).reset_index()
    rank = 1 - (frame["models"] == every) + frame["models"].isin(set(pairs))
    frame = frame.assign(rank=rank).sort_values(["rank", "models", "top_k"], kind="stable")
    sentences = [
        "A model keeps the parameters that it changes most; where two or more keep one, their "
        "signs may disagree, and what they learnt cancels."
    ]
    # The share that the paper of TIES keeps, or what is nearest to it.
    near = (frame["top_k"] - 0.2).abs() + frame["rank"]
    row = frame.iloc[int(near.argmin())].to_dict()
    if row["rank"] == 0 and {"conflict", "by chance"} <= row.keys():
        sentences.append(
            f"At the largest {percent(row['top_k'])}, signs conflict in {row['conflict']:.1%} of "
            f"what two or more of the {most} keep; random signs would in {row['by chance']:.1%}."
        )
    frame = frame.drop(columns="rank").rename(columns={"top_k": "share kept"})
    identifier = f"interference-{number_of_run}" if run.title else "interference"
    return data_table(identifier, run.named("Interference"), tuple(sentences), frame)


def forecast_table(table: pd.DataFrame) -> DataTable | None:
    """What merges are forecast to cost each task, the cheapest first.

    Args:
        table: rows of the results table "forecast".
    """
    if table.empty:
        return None
    ordered = table.sort_values(["loss", "models", "task"], kind="stable")
    sentences = ["Points of accuracy that each task would lose, with intervals of 90 %."]
    known = ordered.dropna(subset=["loss"]).to_dict("records")
    for words, row in (("Least", known[:1]), ("Most", known[1:][-1:])):
        for one in row:
            sentences.append(
                f"{words}: {one['task']} in {one['models']} by "
                f"{one['method']}, {number(one['loss'])} ({number(one['low'])} to "
                f"{number(one['high'])})."
            )
    refused = len(ordered) - len(known)
    if refused:
        sentences.append(f"{count(refused, 'row')} without a forecast: see the last column.")
    else:
        ordered = ordered.drop(columns="refused")
    return data_table("forecast", "Forecast", tuple(sentences), ordered)


_INTERFERENCE = {
    "conflict": "conflict",
    "random": "by chance",
    "conflict_of_all": "of all parameters",
    "overlap": "overlap",
    "random_overlap": "overlap by chance",
}


def _number(value: float) -> Cell:
    if math.isnan(value):
        return Cell("–")
    whole = isinstance(value, int) or float(value).is_integer()
    text = f"{value:,.0f}".replace("-", "−") if whole else number(float(value))
    return Cell(text, float(value))
