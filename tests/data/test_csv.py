from __future__ import annotations

import csv

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alliage.data.files import Row
from alliage.data.tables import read_csv
from alliage.errors import AlliageError
from tests.data.rows import rows_of

CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters='\n\t",;'))


@given(
    st.lists(st.tuples(CELLS.filter(bool), CELLS.filter(bool)), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, separator):
    path = tmp_path_factory.mktemp("csv") / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([("text", "label"), *rows])
    found = [tuple(record.values()) for _, record in read_csv(path)]
    assert found == rows


def test_the_same_table_as_pandas_reads(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('text;label\n"Oui; ""vraiment""\nbien";1\nnon;0\n', encoding="utf-8")
    expected = pd.read_csv(path, sep=";", dtype=str)
    found = [record for _, record in read_csv(path)]
    assert found == expected.to_dict("records")


def test_places_are_those_of_the_first_line_of_a_row(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('text,label\n"one\ntwo",a\n\nlast,b\n')
    assert rows_of(path) == [Row("line 2", ("one\ntwo",), "a"), Row("line 5", ("last",), "b")]


def test_a_stated_separator_wins(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,with,commas;label\na,b;c\n")
    assert [list(record) for _, record in read_csv(path, separator=";")] == [
        ["text,with,commas", "label"]
    ]


def test_rows_of_another_width_are_named(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\na,b,c\nfine,1\nalone\n")
    with pytest.raises(AlliageError) as caught:
        rows_of(path)
    assert [p.where for p in caught.value.problems] == [f"{path}, line 2", f"{path}, line 4"]
    assert "expected 2 columns (text, label), found 3." in str(caught.value)


def test_a_quotation_mark_that_is_never_closed_is_placed(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('text,label\nfine,1\n"never,1\nended,0\n')
    with pytest.raises(AlliageError, match=r"line 3: .*Is a quotation mark not closed"):
        rows_of(path)


@pytest.mark.parametrize(("name", "header"), [("a.csv", "text,label,text"), ("a.tsv", "x\tx")])
def test_a_column_named_twice_is_refused(tmp_path, name, header):
    path = tmp_path / name
    path.write_text(header + "\n")
    with pytest.raises(AlliageError, match=r"the header names the column '(text|x)' twice"):
        rows_of(path)


def test_cells_are_as_long_as_documents_are(tmp_path):
    path = tmp_path / "train.csv"
    document = 'It said "rain".\n' * 20_000
    pd.DataFrame({"text": [document, "short"], "label": ["a", "b"]}).to_csv(path, index=False)
    before = csv.field_size_limit()
    assert len(document) > before
    assert [row.inputs for row in rows_of(path)] == [(document,), ("short",)]
    assert csv.field_size_limit() == before
