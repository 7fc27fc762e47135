import pandas as pd
import pyarrow.parquet as pq
import pytest

from alliage import tables
from alliage.errors import AlliageError
from alliage.studies.results import TABLES, read_table, write_table

ROW = {
    "model": "a",
    "task": "t",
    "split": "test",
    "metric": "accuracy",
    "value": 0.5,
    "examples": 10,
}


def test_what_is_written_is_read(tmp_path):
    rows = [ROW, ROW | {"model": "b", "value": 0.75}]
    path = write_table(tmp_path / "deep", "scores", rows, command="alliage evaluate a b")
    assert read_table(tmp_path, "scores").to_dict("records") == rows
    assert pd.read_parquet(path).to_dict("records") == rows
    schema = pq.read_schema(path)
    assert schema.metadata[b"alliage.command"] == b"alliage evaluate a b"
    assert schema.field("value").metadata[b"unit"].startswith(b"of the metric")


def test_the_same_rows_are_one_file_and_repeated_rows_count_once(tmp_path):
    first = write_table(tmp_path, "scores", [ROW])
    assert write_table(tmp_path, "scores", [ROW]) == first
    write_table(tmp_path / "again", "scores", [ROW, ROW | {"model": "b"}])
    assert len(read_table(tmp_path, "scores")) == 2


def test_a_missing_table_is_empty_with_its_columns(tmp_path):
    frame = read_table(tmp_path, "models")
    assert frame.empty
    assert list(frame.columns) == list(TABLES["models"])


def test_wrong_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="scores has the columns"):
        write_table(tmp_path, "scores", [{"model": "a"}])


def test_unfinished_files_are_passed_over_and_damaged_ones_named(tmp_path):
    write_table(tmp_path / ".partial", "scores", [ROW])
    (tmp_path / ".scores-1.parquet.17").write_bytes(b"half")
    assert read_table(tmp_path, "scores").empty
    (tmp_path / "scores-bad.parquet").write_bytes(b"no parquet")
    write_table(tmp_path, "models", []).rename(tmp_path / "scores-other.parquet")
    with pytest.raises(AlliageError) as caught:
        read_table(tmp_path, "scores")
    assert len(caught.value.problems) == 2
    assert "expected the columns" in str(caught.value)


def test_files_from_before_a_column_was_added_still_read(tmp_path):
    row = {"metric": "l2", "first": "a", "second": "b", "module": "m", "layer": 0, "kind": "query",
           "value": 1.5}  # fmt: skip
    old = {name: TABLES["distances"][name] for name in row}
    tables.write(tmp_path / "distances-old.parquet", old, [row], {})
    added = {"chance": 1.0, "chance_sd": 0.1, "side": "right", "of": "update", "directions": ""}
    write_table(tmp_path, "distances", [row | added])
    frame = read_table(tmp_path, "distances").sort_values("side")
    assert list(frame.columns) == list(TABLES["distances"])
    assert frame["value"].tolist() == [1.5, 1.5]
    assert frame["side"].tolist() == ["", "right"]
    assert frame["chance"].isna().tolist() == [True, False]
