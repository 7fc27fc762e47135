from __future__ import annotations

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from alliage.data import Example, load_task
from alliage.errors import AlliageError
from tests.data.rows import rows_of


def test_what_pandas_writes(tmp_path):
    frame = pd.DataFrame({"text": ["un", "deux", "trois"], "label": [1, 0, 1], "id": [7, 8, 9]})
    frame.to_parquet(tmp_path / "train.parquet")
    rows = rows_of(tmp_path / "train.parquet")
    assert [row.inputs[0] for row in rows] == list(frame["text"])
    assert [row.label for row in rows] == list(map(str, frame["label"]))
    assert [row.place for row in rows] == ["row 1", "row 2", "row 3"]


def test_whole_numbers_that_a_gap_turned_into_fractions_stay_labels(tmp_path):
    frame = pd.DataFrame({"text": ["un", "deux"], "label": [1.0, None]})
    frame.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(AlliageError, match=r"row 2: column 'label': 1 without a label"):
        rows_of(tmp_path / "train.parquet")
    frame.iloc[:1].to_parquet(tmp_path / "train.parquet")
    assert rows_of(tmp_path / "train.parquet")[0].label == "1"


def test_classes_that_datasets_recorded_have_their_names(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["non", "oui"])})
    for split in ("train", "validation"):
        content = {"text": ["a", "b", "c"], "label": [1, 0, 1]}
        Dataset.from_dict(content, features).to_parquet(tmp_path / f"{split}.parquet")
    task = load_task(tmp_path)
    assert task.labels == ("non", "oui")
    assert [example.label for example in task.splits["train"]] == [1, 0, 1]


def test_tags_that_datasets_recorded_have_their_names(tmp_path):
    names = ["O", "B-LOC", "I-LOC"]
    features = Features(
        {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))}
    )
    content = {"tokens": [["New", "York"], ["ici"]], "ner_tags": [[1, 2], [0]]}
    for split in ("train", "validation"):
        Dataset.from_dict(content, features).to_parquet(tmp_path / f"{split}.parquet")
    task = load_task(tmp_path)
    assert (task.kind, task.labels) == ("token-classification", tuple(names))
    assert task.splits["train"] == (
        Example(("New", "York"), (1, 2)),
        Example(("ici",), (0,)),
    )


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(AlliageError, match="is no readable Parquet file"):
        load_task(tmp_path)


def test_a_list_of_another_length_is_named(tmp_path):
    frame = pd.DataFrame({"tokens": [["a", "b"], ["c"]], "tags": [["X", "Y"], ["X", "Y"]]})
    frame.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(AlliageError, match=r"row 2: column 'tags': 2 tags for 1 tokens"):
        load_task(tmp_path)
