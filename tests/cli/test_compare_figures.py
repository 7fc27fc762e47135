"""alliage compare --figures: every picture as SVG, its numbers as CSV beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pandas as pd
import pytest


@pytest.fixture
def alliage(family, tmp_path):
    for model in ("base", "sentiment", "topics", "sentiment-lora", "topics-lora"):
        (tmp_path / model).symlink_to(family / model)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from alliage.cli import main; main()", "compare"]
        return subprocess.run(
            [*command, "--base", "base", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_every_picture_is_drawn_with_its_numbers_beside(alliage, tmp_path):
    models = ("sentiment-lora", "topics-lora", "sentiment")
    options = ("--modules", "q,v", "--metrics", "geodesic,l2", "--json", "--figures", "figures")
    done = alliage(*models, *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    home = tmp_path / "figures"
    kinds = ("map-pca", "map-mds", "map-nonmetric", "dendrogram", "heatmap", "profile")
    wanted = {f"{kind}-{metric}" for kind in kinds for metric in ("geodesic", "l2")}
    drawn = {path.stem for path in home.iterdir()} - {"spectrum"}
    assert drawn == wanted
    assert sorted(document["figures"]) == sorted(f"figures/{p.name}" for p in home.iterdir())
    for name in wanted:
        assert ET.parse(home / f"{name}.svg").getroot().tag.endswith("svg")
    matrix = pd.read_csv(home / "heatmap-l2.csv", index_col=0)
    assert sorted(matrix.index) == sorted(models)
    means = dict(zip(document["models"], document["metrics"]["l2"]["mean"], strict=True))
    expected = means["sentiment"][document["models"].index("topics-lora")]
    assert matrix.loc["sentiment", "topics-lora"] == pytest.approx(expected, rel=1e-12)
    again = {path.name: path.read_bytes() for path in home.iterdir()}
    alliage(*models, *options)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == again


def test_a_file_is_no_folder_for_figures(alliage, tmp_path):
    (tmp_path / "figures").write_text("mine")
    done = alliage("sentiment", "topics", "--metrics", "l2", "--figures", "figures")
    assert done.returncode == 2
    assert "figures: is a file" in done.stderr
    assert (tmp_path / "figures").read_text() == "mine"
