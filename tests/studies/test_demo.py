import json
import shutil
import subprocess
import sys

import pytest

import alliage
from alliage.checkpoints import provenance
from alliage.checkpoints.digests import sha256
from alliage.studies.demo import PRUNED_LAYERS, mean_scores, run_demo, steps
from alliage.studies.digit_models import TASKS


def test_every_step_makes_something_of_its_own(tmp_path):
    made = steps(tmp_path)
    assert len({step.out for step in made}) == len(made)
    assert [step.stage for step in made] == sorted(step.stage for step in made)
    assert len(TASKS) >= 6


def digests(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*.safetensors")}


@pytest.mark.slow
def test_the_whole_demo_twice(tmp_path):
    """From nothing to a report; again, it keeps what is done; a lost part is made again."""
    script = [sys.executable, "-c", "from alliage.cli import main; main()"]
    command = [*script, "demo", "-o", str(tmp_path / "demo"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    means = json.loads(done.stdout)["mean_accuracy"]
    assert means["single (full)"] > 0.9
    assert means["single (lora)"] > 0.9
    for method in ("average", "task_arithmetic", "ties"):
        assert means["single (full)"] > means[method] > 0.8
    home = tmp_path / "demo"
    assert (home / "report.html").stat().st_size > 100_000
    with alliage.open(home / "pruned" / f"digit-{PRUNED_LAYERS}-first") as pruned:
        assert pruned.config["num_hidden_layers"] == PRUNED_LAYERS
    for folder in (home / "merged").iterdir():
        assert provenance.verify(folder)[1] == []

    before = digests(home)
    assert made_again(home) == ["kept from earlier"]
    shutil.rmtree(home / "merged" / "ties")
    assert made_again(home) == ["kept from earlier", "merge by ties"]
    assert mean_scores(home / "results") == means
    assert digests(home) == before


def made_again(home):
    made = []
    run_demo(home, on_event=lambda what, *_: made.append(what))
    return made
