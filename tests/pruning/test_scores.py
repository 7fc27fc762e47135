from __future__ import annotations

import pytest

from alliage.errors import AlliageError, UsageError
from alliage.pruning import read_scores


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", "[0.5, 2, -1e-3]"),
        ("scores.json", '{"task": "x", "scores": [0.5, 2, -0.001]}'),
        ("scores.csv", "layer,score\n0,0.5\n1,2\n2,-0.001\n"),
        ("scores.csv", "\ufeffscore, layer\r\n2,1\r\n-0.001,2\r\n0.5,0\r\n"),
        ("scores.tsv", "layer\tmodule\tscore\n2\tx\t-1e-3\n0\ty\t0.5\n1\tz\t2\n"),
    ],
)
def test_every_form_gives_the_scores_in_the_order_of_layers(name, content, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_scores(tmp_path / name) == [0.5, 2.0, -0.001]


@pytest.mark.parametrize(
    ("name", "content", "messages"),
    [
        ("s.json", "[0.5,", ["is not readable JSON"]),
        ("s.json", '{"values": [1]}', ["expected a list of numbers"]),
        ("s.json", '[1, "2", true]', ["layer 1: expected a number, found '2'", "layer 2"]),
        ("s.csv", "", ["found nothing"]),
        ("s.csv", "layer\tscore\n0\t1\n", ["expected the columns layer and score", "tabs"]),
        ("s.csv", "layer,score\nx,1\n1,\n", ["line 2", "line 3", "found '1', ''"]),
        ("s.csv", "layer,score\n0,1\n0,2\n", ["line 3: layer 0 stands in the table twice"]),
        ("s.csv", "layer,score\n1,1\n2,2\n", ["expected the layers 0 to 1, found [1, 2]"]),
    ],
)
def test_wrong_content_is_named_by_place(name, content, messages, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(AlliageError) as caught:
        read_scores(tmp_path / name)
    for message in messages:
        assert message in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_scores(tmp_path / "scores.json")
    (tmp_path / "scores.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AlliageError, match="no UTF-8"):
        read_scores(tmp_path / "scores.json")
