from __future__ import annotations

import gzip

import pytest

from alliage.data.columns import TextColumns
from alliage.data.files import Row
from alliage.errors import AlliageError
from tests.data.rows import rows_of


def test_tsv_keeps_quotation_marks_and_odd_line_breaks(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text('sentence\tlabel\n"a "film\t1\r\nno\x85break\t0\n\n', encoding="utf-8")
    assert rows_of(path) == [
        Row("line 2", ('"a "film',), "1"),
        Row("line 3", ("no\x85break",), "0"),
    ]


def test_gzip_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "train.tsv.gz"
    path.write_bytes(gzip.compress("\ufefftext\tlabel\nété\tx\n".encode()))
    assert rows_of(path) == [Row("line 2", ("été",), "x")]


def test_jsonl_numbers_and_truth_values_are_labels(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a", "label": 1}\n\n{"text": "b", "label": true}\n')
    assert [row.label for row in rows_of(path)] == ["1", "true"]


@pytest.mark.parametrize(
    ("header", "texts"),
    [
        ("sentence1\tsentence2\tlabel", ("sentence1", "sentence2")),
        ("premise\thypothesis\tlabel", ("premise", "hypothesis")),
        ("question\tsentence\tlabel", ("question", "sentence")),
        ("question\tid\tlabel", ("question",)),
    ],
)
def test_columns_are_found_by_their_names(tmp_path, header, texts):
    path = tmp_path / "train.tsv"
    path.write_text(f"{header}\none\ttwo\tyes\n")
    assert rows_of(path)[0].inputs == ("one", "two")[: len(texts)]


def test_named_columns(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"utterance": "a", "intent": "go"}\n')
    assert rows_of(
        path, "sequence-classification", TextColumns(text="utterance", label="intent")
    ) == [Row("line 1", ("a",), "go")]


def test_a_missing_column_gets_the_nearest_name(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("sentense\tlable\na\t1\n")
    with pytest.raises(AlliageError) as caught:
        rows_of(path, "sequence-classification", TextColumns(text="sentence"))
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}: no column 'sentence'. Did you mean 'sentense'?",
        f"{path}: no column 'label'. Did you mean 'lable'?",
    ]


def test_every_wrong_line_is_named(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\na\tb\tc\nfine\t1\nalone\nnone\t\n")
    with pytest.raises(AlliageError) as caught:
        rows_of(path)
    places = [problem.where for problem in caught.value.problems]
    assert places == [f"{path}, line {number}" for number in (2, 4, 5)]


def test_every_wrong_object_is_named(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"text": "a", "label": 1}\n[1]\n{"text":\n{"text": 3, "label": 1}\n'
        '{"text": "a", "label": [1]}\n{"text": "a"}\n'
    )
    with pytest.raises(AlliageError) as caught:
        rows_of(path)
    places = [problem.where for problem in caught.value.problems]
    assert places == [f"{path}, line {number}" for number in (2, 3, 4, 5, 6)]


def test_bytes_that_are_no_utf8_are_placed(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes(b"text\tlabel\nfine\t1\ncaf\xe9\t0\n")
    with pytest.raises(AlliageError, match="line 3: is not UTF-8: byte 0xe9 at 3"):
        rows_of(path)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    path = tmp_path / "train.tsv.gz"
    path.write_bytes(gzip.compress(b"text\tlabel\na\t1\n" * 100)[:-20])
    with pytest.raises(AlliageError, match="cannot be read"):
        rows_of(path)
