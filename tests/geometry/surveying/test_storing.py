import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import alliage
from alliage.errors import AlliageError, UsageError
from alliage.geometry import Survey


@pytest.fixture
def found(family):
    return alliage.compare(
        family / "base",
        [family / model for model in ("sentiment", "topics", "sentiment-lora")],
        ["l2", "geodesic", "core_energy", "sti"],
        spectra=True,
    )


def same(first, second):
    assert second.data.identical(first.data)
    assert second.null.identical(first.null)
    assert second.spectra.identical(first.spectra)
    assert second.notes == first.notes


def test_a_survey_comes_back_the_same(found, tmp_path):
    written = found.save(tmp_path / "kept" / "here")
    assert [path.name for path in written] == [
        "survey-pairs.parquet", "survey-models.parquet", "survey-singular-values.parquet",
    ]  # fmt: skip
    again = Survey.load(tmp_path / "kept" / "here")
    same(found, again)
    assert again.findings() == found.findings()
    assert again.interval("l2").low.identical(found.interval("l2").low)


def test_absent_modules_and_spectra_come_back_too(family, tmp_path, found):
    """Biases have L2 and no angles; a survey without spectra leaves none of another's."""
    found.save(tmp_path)
    models = [family / "sentiment", family / "topics"]
    plain = alliage.compare(family / "base", models, by="layer")
    assert len(plain.save(tmp_path)) == 1
    same(plain, Survey.load(tmp_path))
    sums = alliage.compare(family / "base", models, ["l2"])
    assert [path.name for path in sums.save(tmp_path)] == ["survey-pairs.parquet"]
    same(sums, Survey.load(tmp_path))


def test_columns_have_units_and_the_file_is_one_parquet(found, tmp_path):
    found.save(tmp_path)
    schema = pq.read_schema(tmp_path / "survey-pairs.parquet")
    assert schema.field("l2").metadata == {b"unit": b"weights"}
    assert "chance:core_energy_sd" in schema.names
    notes = json.loads(schema.metadata[b"alliage.notes"])
    assert notes == list(found.notes)
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_survey_is_refused(found, tmp_path):
    with pytest.raises(AlliageError, match=r"holds no survey: there is no survey-pairs\.parquet"):
        Survey.load(tmp_path)
    (tmp_path / "survey-pairs.parquet").write_text("not Parquet")
    with pytest.raises(AlliageError, match="no readable Parquet file"):
        Survey.load(tmp_path)
    found.save(tmp_path)
    table = pq.read_table(tmp_path / "survey-pairs.parquet")
    pq.write_table(table.slice(1), tmp_path / "survey-pairs.parquet")
    with pytest.raises(AlliageError, match="is not whole: 35 rows, expected 36"):
        Survey.load(tmp_path)
    pq.write_table(table.drop_columns(["layer"]), tmp_path / "survey-pairs.parquet")
    with pytest.raises(AlliageError, match="lacks the columns layer"):
        Survey.load(tmp_path)
    pq.write_table(table.replace_schema_metadata(), tmp_path / "survey-pairs.parquet")
    with pytest.raises(AlliageError, match="is no table of a survey"):
        Survey.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        found.save(tmp_path / "file")


def test_frames_and_datasets(found):
    frame = found.to_pandas()
    assert list(frame.columns) == list(found.metrics)
    assert len(frame) == 6 * found.data.sizes["module"]  # core_energy is directed
    cell = frame.xs(("topics", "sentiment-lora"), level=("task", "other"))["core_energy"].to_numpy()
    expected = found["core_energy"].sel(task="topics", other="sentiment-lora")
    np.testing.assert_array_equal(cell, expected)
    whole = found.to_xarray()
    assert whole["layer"].dtype.kind == "i"
    assert {"l2", "chance:geodesic", "effective_rank", "singular_values"} <= set(whole)
    np.testing.assert_array_equal(whole["chance:geodesic_sd"], found.null["geodesic_sd"])
    alone = Survey(found.data[["l2"]], found.null[[]], ())
    assert len(alone.to_pandas()) == 3 * found.data.sizes["module"]


def test_rows_of_the_results_tables(found):
    distances = list(found.to_rows())
    assert {row["metric"] for row in distances} == {"l2", "geodesic", "sti"}
    inclusion = list(found.to_inclusion_rows())
    assert {row["metric"] for row in inclusion} == {"core_energy"}
    assert len(inclusion) == 6 * found.data.sizes["module"]
    row = next(r for r in inclusion if (r["model"], r["into"]) == ("sentiment", "topics"))
    pair = {"task": "sentiment", "other": "topics", "module": row["module"]}
    assert row["value"] == float(found["core_energy"].sel(pair))
    assert row["chance"] == float(found.null["core_energy"].sel(pair))
    assert row["chance_sd"] == float(found.null["core_energy_sd"].sel(pair))
    spectra = list(found.to_spectrum_rows())
    values = found.spectra["singular_values"]
    assert len(spectra) == int(values.notnull().sum())
    assert spectra[1] == {
        "model": "sentiment", "module": values["module"].values[0], "layer": 0, "kind": "query",
        "direction": 1, "value": float(values[0, 0, 1]),
    }  # fmt: skip


def test_layers_stay_integers_where_only_some_modules_have_spectra(family):
    """Biases and norms have none."""
    models = [family / "sentiment", family / "topics"]
    found = alliage.compare(family / "base", models, ["l2"], spectra=True)
    whole = found.to_xarray()
    assert found.spectra.sizes["module"] < found.data.sizes["module"]
    np.testing.assert_array_equal(whole["layer"], found.data["layer"])
    assert whole["layer"].dtype.kind == "i"
    kept = whole["rank"].sel(module=found.spectra["module"])
    np.testing.assert_array_equal(kept, found.spectra["rank"])
