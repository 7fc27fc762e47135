from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from alliage.studies.results import read_table


@pytest.fixture
def alliage(family, tmp_path):
    """Run the command beside links to the models, away from their folder."""
    for model in ("base", "sentiment", "topics", "sentiment-lora", "topics-lora"):
        (tmp_path / model).symlink_to(family / model)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from alliage.cli import main; main()", "compare"]
        return subprocess.run(
            [*command, "--base", "base", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_prints_a_matrix_and_a_finding_for_each_metric(alliage):
    done = alliage("sentiment-lora", "topics-lora", "sentiment", "--modules", "q,v")
    assert done.returncode == 0, done.stderr
    for metric in ("l2", "cosine", "geodesic"):
        assert f"{metric}, mean over 4 modules" in done.stdout
        assert metric == "geodesic" or f"{metric}: nearest " in done.stdout
    # The dense update fills its space of 16 dimensions: no angle to it says anything.
    assert "geodesic, in shares of each pair's chance: sentiment-lora – topics-lora" in done.stdout
    assert "random updates" in done.stdout
    assert done.stderr.startswith("note: 35 of 39 parameters")


def test_writes_the_results_table(alliage, tmp_path):
    done = alliage(
        "sentiment", "topics", "--metrics", "l2,cosine", "--by", "layer", "-o", "results"
    )
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "results", "distances")
    assert sorted(table["metric"].unique()) == ["cosine", "l2"]
    assert sorted(table["layer"].unique()) == [-1, 0, 1]
    assert "Wrote results/distances-" in done.stderr
    assert set(table["side"]) == {"left"}
    assert set(table["directions"]) == {"rank 16"}
    cosines = table[table["metric"] == "cosine"]
    assert cosines["chance"].eq(1.0).all()
    assert cosines["chance_sd"].gt(0).all()


def test_runs_into_one_folder_are_told_apart_and_load_as_surveys(alliage, tmp_path):
    from alliage.geometry import Survey

    for side in ("left", "right"):
        done = alliage("sentiment-lora", "topics-lora", "--metrics", "geodesic", "--energy", "0.9",
                       "--side", side, "-o", "results", "--json")  # fmt: skip
        document = json.loads(done.stdout)
        assert [document[key] for key in ("by", "side", "of", "rank", "energy")] == [
            "module", side, "update", None, 0.9,
        ]  # fmt: skip
        loaded = Survey.load(tmp_path / document["written"][-1])
        assert list(loaded.to_rows()) == document["distances"]
        assert loaded.data.attrs["side"] == side
    table = read_table(tmp_path / "results", "distances")
    assert table.groupby("side")["value"].count().to_dict() == {"left": 4, "right": 4}
    assert set(table["directions"]) == {"energy 0.9"}


def test_json_is_all_of_stdout(alliage):
    done = alliage("base", "topics", "--metrics", "geodesic", "--last-layers", "1", "--json", "-q")
    document = json.loads(done.stdout)
    assert document["models"] == ["base", "topics"]
    assert document["metrics"]["geodesic"]["mean"][0][1] is None  # base does not differ
    assert document["distances"] == []
    assert done.stderr == ""


def test_wrong_names_get_the_nearest_ones(alliage, tmp_path):
    done = alliage("sentiment", "topics", "--metrics", "cosin", "--modules", "valeu", "-o", "out")
    assert done.returncode == 2
    assert "Did you mean 'cosine'" in done.stderr
    assert "Did you mean 'value'" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_directed_metrics_spectra_and_intervals(alliage, tmp_path):
    done = alliage(
        "sentiment-lora", "topics-lora", "--metrics", "core_energy,sti", "--spectra", "-o", "out"
    )
    assert done.returncode == 0, done.stderr
    assert "core_energy: each row in each column, mean over 4 modules [95 %]" in done.stdout
    assert "spectra, mean over 4 modules" in done.stdout
    assert "effective rank" in done.stdout
    assert "core_energy: lowest " in done.stdout
    assert len(read_table(tmp_path / "out", "inclusion")) == 2 * 4
    assert set(read_table(tmp_path / "out", "distances")["metric"]) == {"sti"}
    assert len(read_table(tmp_path / "out", "spectra")) == 2 * 4 * 2
    document = json.loads(
        alliage("sentiment-lora", "topics-lora", "--metrics", "core_energy", "--json").stdout
    )
    told = document["metrics"]["core_energy"]
    assert told["directed"] is True
    assert told["interval"]["low"][0][1] <= told["mean"][0][1] <= told["interval"]["high"][0][1]
    assert told["by_chance"][0][1] == pytest.approx(4 / 256)
    assert len(document["inclusion"]) == 8


def test_a_single_value_has_no_interval(alliage):
    done = alliage("sentiment", "topics", "--by", "model", "--metrics", "l2,geodesic")
    assert done.returncode == 0, done.stderr
    assert "[" not in done.stdout.partition("random subspaces")[0]


def test_factors_and_sides(alliage):
    done = alliage("sentiment-lora", "topics-lora", "--metrics", "geodesic", "--of", "A")
    assert done.returncode == 0, done.stderr
    right = alliage("sentiment-lora", "topics-lora", "--metrics", "geodesic", "--side", "right")
    # A's rows span the row space of an update whose B has full rank.
    assert done.stdout == right.stdout
    refused = alliage("sentiment", "topics", "--metrics", "geodesic", "--of", "B")
    assert refused.returncode == 2
    assert "sentiment: has no factor B" in refused.stderr


def test_lists_its_metrics(alliage):
    from alliage.geometry.surveying.metrics import METRICS

    done = alliage("--list-metrics")
    assert done.returncode == 0, done.stderr
    for name, metric in METRICS.items():
        assert f" {name} " in done.stdout
        assert metric.definition in done.stdout


def test_titles_count_the_modules_of_each_pair():
    """Of a third model only two of four modules have angles."""
    import numpy as np
    import xarray as xr

    from alliage.cli.compare import _title
    from alliage.geometry import Survey

    values = np.ones((3, 3, 4))
    values[2, :, :2] = values[:, 2, :2] = np.nan
    survey = Survey(
        xr.Dataset({"geodesic": (("task", "other", "module"), values)}), xr.Dataset(), ()
    )
    assert _title(survey, "geodesic") == "geodesic, mean over 2–4 modules [95 %]"
    values[:, :, 1:] = np.nan
    assert _title(survey, "geodesic") == "geodesic"


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
