"""The results store: Parquet tables with units in their metadata, one file for each run.

A results folder is any folder; its tables are the files `<table>-<run>.parquet` in it and below it.
Every writer makes files of its own, so several may write at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alliage import tables
from alliage.errors import AlliageError, Problem, UsageError

if TYPE_CHECKING:
    import pandas as pd

# table -> column -> (type, unit or meaning)
TABLES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "distances": {
        "metric": ("string", "name of the metric"),
        "first": ("string", "model"),
        "second": ("string", "model"),
        "module": ("string", "module, layer or model, by what was compared"),
        "layer": ("int64", "index from 0; -1 outside the stack"),
        "kind": ("string", "query, key, value, output, mlp, ..."),
        "value": ("float64", "of the metric: geodesic in radians, l2 in weights, cosine without"),
        "chance": ("float64", "mean for unrelated models; NaN where it is not known"),
        "chance_sd": ("float64", "standard deviation for unrelated models; NaN where not known"),
        "side": ("string", "of angles: left, between images, or right, between row spaces"),
        "of": ("string", "update, or A or B for one factor of LoRA"),
        "directions": ("string", "of dense updates: rank 16, energy 0.9, ..."),
    },
    "inclusion": {
        "metric": ("string", "explained_energy, core_energy, rec, spectrum_l1 or spectrum_l2"),
        "model": ("string", "whose update is projected"),
        "into": ("string", "the model whose space it is projected into"),
        "module": ("string", "module, layer or model, by what was compared"),
        "layer": ("int64", "index from 0; -1 outside the stack"),
        "kind": ("string", "query, key, value, output, mlp, ..."),
        "value": ("float64", "of the metric: energies and rec are shares from 0 to 1"),
        "chance": ("float64", "mean for random spaces; NaN where it is not known"),
        "chance_sd": ("float64", "standard deviation for random spaces; NaN where not known"),
    },
    "spectra": {
        "model": ("string", "name"),
        "module": ("string", "name"),
        "layer": ("int64", "index from 0; -1 outside the stack"),
        "kind": ("string", "query, key, value, output, mlp, ..."),
        "direction": ("int64", "from 0, largest singular value first"),
        "value": ("float64", "singular value of the update, in weights"),
    },
    "forecast": {
        "models": ("string", "that are merged, joined by +"),
        "task": ("string", "the model whose task it is"),
        "method": ("string", "of the merge"),
        "needs": ("string", "weights or answers: what the forecast was made from"),
        "loss": ("float64", "of accuracy, in points of 100; not a number without a forecast"),
        "low": ("float64", "lower end of the 90 % interval"),
        "high": ("float64", "upper end of the 90 % interval"),
        "refused": ("string", "why there is no forecast"),
    },
    "interference": {
        "measure": (
            "string",
            "conflict, conflict_of_all, overlap, influence, magnitude, ...",
        ),
        "by": ("string", "of whose parameters: model, layer, kind, module, keeping or agreement"),
        "group": ("string", "which of them; for keeping, how many models keep the parameter"),
        "step": ("string", "of the merge that a magnitude is measured after; else empty"),
        "top_k": ("float64", "share of the largest entries that each model keeps"),
        "models": ("int64", "count of models that the value is of"),
        "first": ("string", "model of a pair; else empty"),
        "second": ("string", "model of a pair; else empty"),
        "value": ("float64", "share from 0 to 1; magnitude and deviation in units of the weights"),
    },
    "models": {
        "model": ("string", "name"),
        "role": ("string", "base, single, merged or pruned"),
        "method": ("string", "how it was made: full, lora, ties, best-n, ..."),
        "path": ("string", "folder or hub id"),
        "layers": ("int64", "count"),
        "parameters": ("int64", "count"),
        "bytes": ("int64", "bytes on disk"),
    },
    "scores": {
        "model": ("string", "name"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "metric": ("string", "accuracy, f1, matthews, ece, seconds, ..."),
        "value": ("float64", "of the metric: shares from 0 to 1, matthews from -1 to 1"),
        "examples": ("int64", "count"),
    },
    "intervals": {
        "model": ("string", "name"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "metric": ("string", "accuracy, f1, matthews, perplexity, ..."),
        "level": ("float64", "of confidence, from 0 to 1"),
        "low": ("float64", "lower end, of the metric"),
        "high": ("float64", "upper end, of the metric"),
        "method": ("string", "bca or percentile, the bootstrap's; exact"),
    },
    "comparisons": {
        "model": ("string", "name"),
        "against": ("string", "name of the model that it is compared with"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "metric": ("string", "accuracy, f1, matthews, perplexity, ..."),
        "value": ("float64", "the model's metric minus the other's"),
        "low": ("float64", "lower end of the difference at 95 %"),
        "high": ("float64", "upper end of the difference at 95 %"),
        "p": ("float64", "two-sided probability if the models were alike"),
        "test": ("string", "mcnemar, randomisation or bootstrap"),
    },
    "calibration": {
        "model": ("string", "name"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "metric": ("string", "ece, smce, pgap, dual_smce, dual_pgap or lower_distance"),
        "value": ("float64", "of the top label's probability"),
        "low": ("float64", "lower end of the 95 % bootstrap interval"),
        "high": ("float64", "upper end of the 95 % bootstrap interval"),
        "chance_low": ("float64", "lower end of where 95 % of calibrated models lie"),
        "chance_high": ("float64", "upper end of where 95 % of calibrated models lie"),
        "classes_mean": ("float64", "of each class against the rest, mean"),
        "classes_largest": ("float64", "of each class against the rest, largest"),
    },
    "calibration_domains": {
        "model": ("string", "name"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "domain": ("string", "part of the data"),
        "metric": ("string", "ece, smce or pgap"),
        "examples": ("int64", "decisions in the domain"),
        "value": ("float64", "of the top label's probability"),
        "chance_low": ("float64", "lower end of where 95 % of calibrated models lie"),
        "chance_high": ("float64", "upper end of where 95 % of calibrated models lie"),
    },
    "trials": {
        "trial": ("int64", "number, in the order of trying"),
        "method": ("string", "of the merge"),
        "parameters": ("string", "that were searched, as JSON"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "metric": ("string", "accuracy, f1, entropy in nats, ..."),
        "value": ("float64", "of the metric"),
        "seconds": ("float64", "of merge and answers; 0 where nobody measured"),
    },
    "speed": {
        "model": ("string", "name"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "device": ("string", "cpu, or the GPU's name"),
        "threads": ("int64", "of torch"),
        "batch": ("int64", "examples in a pass"),
        "passes": ("int64", "measured, after a warm-up"),
        "low": ("float64", "seconds of a pass, first quartile"),
        "median": ("float64", "seconds of a pass"),
        "high": ("float64", "seconds of a pass, third quartile"),
        "throughput": ("float64", "examples in a second"),
    },
    "reliability": {
        "model": ("string", "name"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "low": ("float64", "lower edge of the bin of confidence"),
        "high": ("float64", "upper edge of the bin of confidence"),
        "confidence": ("float64", "mean confidence in the bin"),
        "accuracy": ("float64", "share of right answers in the bin"),
        "examples": ("int64", "count"),
    },
    "reliability_curves": {
        "model": ("string", "name"),
        "task": ("string", "name"),
        "split": ("string", "train, validation or test"),
        "confidence": ("float64", "a place from 0 to 1"),
        "accuracy": ("float64", "share of right answers around it, smoothed"),
        "density": ("float64", "of the answers, 1 in the mean"),
        "chance_low": ("float64", "lower end for accuracy at 95 % if the model were calibrated"),
        "chance_high": ("float64", "upper end for accuracy at 95 % if the model were calibrated"),
    },
}


# table -> column -> what it is in files and rows from before there was the column
ADDED: Mapping[str, Mapping[str, Any]] = {
    "distances": {
        "chance": math.nan, "chance_sd": math.nan, "side": "", "of": "", "directions": "",
    },
}  # fmt: skip


def check_folder(folder: str | Path) -> None:
    """Refuse a results folder that is something else; for callers whose work takes long.

    Raises:
        UsageError: a file, or something below a file.
    """
    path = Path(folder)
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        what = "is a file" if existing == path else f"{existing} is a file"
        raise UsageError(Problem(str(folder), f"{what}; expected a folder for results."))


def write_table(
    folder: str | Path, table: str, rows: Iterable[Mapping[str, Any]], *, command: str = ""
) -> Path:
    """Write the rows of one run; the file appears only when complete.

    Args:
        folder: the results folder; made if missing.
        table: one of `TABLES`.
        rows: each with the table's columns, no more; and no fewer but for those of `ADDED`.
        command: the command that made them, kept in the file's metadata.

    Returns:
        the file, named after its content: writing the same rows again writes the same file.
    """
    columns = TABLES[table]
    content = [{**ADDED.get(table, {}), **row} for row in rows]
    for row in content:
        if row.keys() != columns.keys():
            raise ValueError(f"{table} has the columns {list(columns)}, got {list(row)}")
    digest = hashlib.sha256(json.dumps([command, content]).encode()).hexdigest()[:16]
    folder = Path(folder)
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{table}-{digest}.parquet"
    tables.write(target, columns, content, {"alliage.table": table, "alliage.command": command})
    return target


def table_files(folder: str | Path, table: str) -> list[Path]:
    """The files of a table; hidden ones and those in hidden folders are unfinished."""
    home = Path(folder)
    return [
        path
        for path in sorted(home.rglob(f"{table}-*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(home).parts)
    ]


def read_table(folder: str | Path, table: str, *, runs: bool = False) -> pd.DataFrame:
    """All rows of a table in a results folder and below it; repeated rows once.

    A folder without the table gives an empty frame with its columns.

    Args:
        folder: the results folder.
        table: one of `TABLES`.
        runs: tell runs apart, by the columns "run" (the file) and "command"; rows are repeated
            where runs share them, but a run whose rows are all those of another stands once.

    Raises:
        AlliageError: files that are damaged or hold another table; all of them.
    """
    import pandas as pd

    columns = list(TABLES[table])
    frames: list[pd.DataFrame] = []
    problems: list[Problem] = []
    for path in table_files(folder, table):
        try:
            frame, about, _ = tables.read(path)
        except AlliageError as error:
            problems += error.problems
            continue
        frame = frame.assign(
            **{key: value for key, value in ADDED.get(table, {}).items() if key not in frame}
        )
        if list(frame.columns) != columns:
            problems.append(
                Problem(str(path), f"expected the columns {columns}, found {list(frame.columns)}.")
            )
            continue
        if runs and any(frame.equals(other[columns]) for other in frames):
            continue
        if runs:
            file, command = path.relative_to(folder).as_posix(), about.get("alliage.command", "")
            frame = frame.assign(run=file, command=command)
        frames.append(frame)
    if problems:
        raise AlliageError(problems)
    if not frames:
        return pd.DataFrame(columns=columns)
    table_rows: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return table_rows.drop_duplicates(ignore_index=True)
