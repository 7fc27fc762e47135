"""Surveys as Parquet files in a folder, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from alliage import tables
from alliage.errors import AlliageError, Problem, UsageError

if TYPE_CHECKING:
    import pandas as pd

_PAIRS, _MODELS, _VALUES = "survey-pairs", "survey-models", "survey-singular-values"
_MODULE: tables.Columns = {
    "module": ("string", "module, layer or model, by what was compared"),
    "layer": ("int64", "index from 0; -1 outside the stack"),
    "kind": ("string", "query, key, value, output, mlp, ..."),
}
_FLOAT = "float64"


def save(
    folder: str | Path,
    data: xr.Dataset,
    null: xr.Dataset,
    spectra: xr.Dataset,
    notes: tuple[str, ...],
) -> list[Path]:
    """Write a survey's arrays, each cell a row; NaN stays NaN.

    Raises:
        UsageError: the folder is a file.
    """
    home = Path(folder)
    if home.exists() and not home.is_dir():
        raise UsageError(Problem(str(folder), "is a file; expected a folder for a survey."))
    home.mkdir(parents=True, exist_ok=True)
    about = {
        "alliage.notes": json.dumps(notes, ensure_ascii=False),
        "alliage.survey": json.dumps(dict(data.attrs)),
        "alliage.definitions": json.dumps(
            {str(name): array.attrs.get("long_name", "") for name, array in data.items()},
            ensure_ascii=False,
        ),
    }
    chance = null.rename({name: f"chance:{name}" for name in null})
    written = [_write(home, _PAIRS, data.merge(chance, compat="identical"), about)]
    for name, part in (
        (_MODELS, spectra.drop_vars("singular_values", errors="ignore")),
        (_VALUES, spectra[["singular_values"]] if "singular_values" in spectra else xr.Dataset()),
    ):
        if part.data_vars:
            told = {str(key): array.attrs.get("long_name", "") for key, array in part.items()}
            about = {"alliage.definitions": json.dumps(told, ensure_ascii=False)}
            written.append(_write(home, name, part, about))
        else:
            (home / f"{name}.parquet").unlink(missing_ok=True)  # of another survey
    return written


def load(folder: str | Path) -> tuple[xr.Dataset, xr.Dataset, tuple[str, ...], xr.Dataset]:
    """What `save` wrote: values, what chance gives, notes and spectra.

    Raises:
        AlliageError: no survey is there, or its files are damaged.
    """
    home = Path(folder)
    if not (home / f"{_PAIRS}.parquet").is_file():
        raise AlliageError(
            Problem(
                str(folder),
                f"holds no survey: there is no {_PAIRS}.parquet.",
                "Write one with Survey.save.",
            )
        )
    both, about = _read(home / f"{_PAIRS}.parquet", ("task", "other", "module"))
    try:
        notes, attributes = (json.loads(about[f"alliage.{key}"]) for key in ("notes", "survey"))
    except (KeyError, ValueError):
        where = str(home / f"{_PAIRS}.parquet")
        raise AlliageError(Problem(where, "is no table of a survey.")) from None
    chance = [str(name) for name in both if str(name).startswith("chance:")]
    null = both.drop_vars([name for name in both if name not in chance])
    null = null.rename({name: name.removeprefix("chance:") for name in chance})
    for array in null.values():
        array.attrs = {}
    data = both.drop_vars(chance).assign_attrs(attributes)
    spectra = xr.Dataset()
    if (home / f"{_MODELS}.parquet").is_file():
        spectra, _ = _read(home / f"{_MODELS}.parquet", ("task", "module"))
    if (home / f"{_VALUES}.parquet").is_file():
        values, _ = _read(home / f"{_VALUES}.parquet", ("task", "module", "direction"))
        spectra["singular_values"] = values["singular_values"].drop_vars("direction")
    return data, null, tuple(notes), spectra


def _write(home: Path, table: str, dataset: xr.Dataset, about: dict[str, str]) -> Path:
    axes = [axis for axis in ("task", "other", "module", "direction") if axis in dataset.sizes]
    columns: dict[str, tuple[str, str]] = {}
    content: dict[str, Any] = {}
    shape = tuple(dataset.sizes[axis] for axis in axes)
    places = dict(zip(axes, np.indices(shape).reshape(len(axes), -1), strict=True))
    for axis in axes:
        if axis == "direction":
            columns[axis] = ("int64", "from 0, largest singular value first")
            content[axis] = places[axis]
        elif axis == "module":
            columns |= _MODULE
            for key in _MODULE:
                content[key] = dataset[key].values[places[axis]].tolist()
        else:
            columns[axis] = ("string", "model")
            content[axis] = dataset[axis].values[places[axis]].tolist()
    for name, array in dataset.items():
        columns[str(name)] = (_FLOAT, array.attrs.get("units", ""))
        content[str(name)] = array.transpose(*axes).to_numpy().ravel()
    path = home / f"{table}.parquet"
    tables.write(path, columns, content, about)
    return path


def _read(path: Path, axes: tuple[str, ...]) -> tuple[xr.Dataset, dict[str, str]]:
    frame, about, units = tables.read(path)
    missing = [name for name in (*axes, "layer", "kind") if name not in frame]
    if missing:
        raise AlliageError(Problem(str(path), f"lacks the columns {', '.join(missing)}."))
    order = {axis: list(dict.fromkeys(frame[axis])) for axis in axes}
    shape = tuple(len(values) for values in order.values())
    if len(frame) != np.prod(shape):
        raise AlliageError(
            Problem(str(path), f"is not whole: {len(frame)} rows, expected {np.prod(shape)}.")
        )
    modules: pd.DataFrame = frame.drop_duplicates("module")
    coordinates: dict[str, Any] = dict(order)
    coordinates["layer"] = ("module", modules["layer"].to_list())
    coordinates["kind"] = ("module", modules["kind"].to_list())
    names = [str(name) for name in frame if name not in (*axes, "layer", "kind")]
    dataset = xr.Dataset(
        {name: (axes, frame[name].to_numpy(dtype=np.float64).reshape(shape)) for name in names},
        coordinates,
    )
    told = json.loads(about.get("alliage.definitions", "{}"))
    for name in names:
        if name in told:
            dataset[name].attrs["long_name"] = told[name]
        if units[name]:
            dataset[name].attrs["units"] = units[name]
    return dataset, about
