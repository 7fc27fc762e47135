"""alliage.json as anybody may have edited it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from alliage.checkpoints import provenance
from alliage.errors import CheckFailed


@pytest.fixture
def entry(tmp_path):
    """The record's entry of an output of one file."""
    save_file({"t": torch.zeros(1)}, tmp_path / "model.safetensors")
    return provenance.describe("merge", {}, [], tmp_path)["outputs"][0]


def record(folder, entry):
    content = {"recipe": {}, "inputs": [], "outputs": [entry]}
    (folder / "alliage.json").write_text(json.dumps(content))
    return folder


def test_an_entry_as_it_was_written_is_sound(tmp_path, entry):
    count, problems = provenance.verify(record(tmp_path, entry))
    assert count == 1
    assert [problem.what for problem in problems] == [
        "the recipe was edited: its SHA-256 does not match."
    ]


@pytest.mark.parametrize(
    "change",
    [{"bytes": None}, {"bytes": "9"}, {"sha256": 5}, {"sha256": {}}, {"file": 5}, {"file": []}],
    ids=str,
)
def test_entries_of_other_types_are_no_record(tmp_path, entry, change):
    with pytest.raises(CheckFailed, match="no record that Alliage wrote"):
        provenance.verify(record(tmp_path, entry | change))
    for key in change:
        less = {name: value for name, value in entry.items() if name != key}
        with pytest.raises(CheckFailed, match="no record that Alliage wrote"):
            provenance.verify(record(tmp_path, less))


@pytest.mark.parametrize("file", ["a" * 5000, "a\0b", "..", "/dev/zero"])
def test_a_name_that_can_be_no_file_is_a_file_that_is_gone(tmp_path, entry, file):
    _, problems = provenance.verify(record(tmp_path, entry | {"file": file}))
    assert "the output is gone" in problems[-1].what
