import json
import signal
import subprocess
import sys
import time

import torch
from safetensors.torch import save_file


def test_a_recipe(alliage, workspace):
    done = alliage("merge merge.yml -o merged")
    assert done.returncode == 0, done.stderr
    assert "2 models merged by ties" in done.stdout
    assert (workspace / "merged" / "model.safetensors").is_file()
    verified = alliage("verify merged --json")
    assert verified.returncode == 0
    assert json.loads(verified.stdout)["problems"] == []


def test_a_recipe_to_search_from_is_merged_by_its_own_parameters(alliage, workspace):
    assert alliage("merge merge.yml -o expected").returncode == 0
    with (workspace / "merge.yml").open("a") as file:
        file.write("search: {parameters: {density: [0.5, 0.9]}}\n")
    done = alliage("merge merge.yml -o merged")
    assert done.returncode == 0, done.stderr
    assert "note: search: is left out, it is for `alliage search`" in done.stderr
    expected, found = (workspace / name / "model.safetensors" for name in ("expected", "merged"))
    assert expected.read_bytes() == found.read_bytes()


def test_options_instead_of_a_recipe(alliage, workspace):
    line = "merge --method average sentiment topics --set weight=3,1 -o merged --json -q"
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["plan"]["arguments"] == {"weight": [3, 1], "normalize": True}
    assert document["run"]["bytes_written"] > 0
    assert done.stderr == ""


def test_a_list_for_each_model_may_be_yaml(alliage):
    line = "merge --method average sentiment topics --set weight=[0.5,0.25] --dry-run --json"
    done = alliage(line)
    arguments = json.loads(done.stdout)["plan"]["arguments"]
    assert arguments == {"weight": [0.5, 0.25], "normalize": True}


def test_the_plan_alone_writes_nothing(alliage, workspace):
    before = sorted(workspace.iterdir())
    done = alliage("merge merge.yml --dry-run")
    assert done.returncode == 0
    for word in ("read", "write", "memory", "time", "problems", "none"):
        assert word in done.stdout
    assert sorted(workspace.iterdir()) == before


def test_a_plan_with_problems_shows_them_all(alliage, workspace):
    (workspace / "merge.yml").write_text(
        "method: ties\nbase: base\nmodels: [sentiment-data, nowhere]\n"
    )
    done = alliage("merge merge.yml --dry-run --json")
    assert done.returncode == 2
    assert len(json.loads(done.stdout)["plan"]["problems"]) == 2
    assert "no weights in it" in done.stderr
    assert "nowhere" in done.stderr


def test_usage_errors_exit_with_2(alliage):
    for line, message in [
        ("merge sentiment -o out", "expected one recipe"),
        ("merge merge.yml", "no output folder"),
        ("merge merge.yml --base base -o out", "go with --method"),
        ("merge --method tis --base base sentiment -o out", "'ties'"),
        ("merge --method ties --base base sentiment -o out --set densty=1", "'density'"),
        ("merge --method ties --base base sentiment -o out --set density", "expected KEY=VALUE"),
        ("merge --method ties --base base sentiment -o out --set weight=1,2", "2 values for 1"),
        ("merge --method ties --base base sentiment -o out --set density={", "expected KEY=VALUE"),
        ("merge --method ties sentiment -o out", "common base"),
        ("merge merge.yml -o base", "exists already"),
        ("merge merge.yml -o out --memory lots", "is no size"),
        ("merge merge.yml -o out --shard-size 1kB", "1kB is too little. Give 1MB or more"),
        ("merge merge.yml -o out --shard-size 0", "0 is too little"),
        ("merge merge.yml -o out --ray-address h:1", "--ray-address: goes with --on ray"),
        (
            "merge --method ties --base base sentiment -o out --set density=1 --set density=0.5",
            "--set density=0.5: density is set twice",
        ),
        ("merge merge.yml -o out --device tpu", "must be cpu or cuda"),
    ]:
        done = alliage(line)
        assert done.returncode == 2, (line, done.stderr)
        assert message in done.stderr, line
        assert done.stdout == ""


def test_verify_says_no_with_3(alliage, workspace):
    alliage("merge merge.yml -o merged")
    with (workspace / "sentiment" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    done = alliage("verify merged")
    assert done.returncode == 3
    assert "input sentiment changed" in done.stderr
    assert alliage("verify base").returncode == 2
    (workspace / "merged" / "config.json").write_text("{}")
    assert "config.json: the output changed" in alliage("verify merged").stderr
    (workspace / "merged" / "alliage.json").write_text('{"outputs": []}')
    assert alliage("verify merged").returncode == 3


def test_a_merge_that_is_told_to_stop_shows_nothing(tmp_path):
    """SIGTERM in the middle of a real process; nothing half-written is visible."""
    for seed, name in enumerate(("base", "a", "b")):
        (tmp_path / name).mkdir()
        generator = torch.Generator().manual_seed(seed)
        tensors = {f"layers.{i}.w": torch.randn(1024, 2048, generator=generator) for i in range(30)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    script = [sys.executable, "-c", "from alliage.cli import main; main()"]
    line = "merge --method ties --base base a b -o out -q --threads 1"
    running = subprocess.Popen([*script, *line.split()], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.partial/files/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    visible = sorted(path.name for path in tmp_path.iterdir() if path.name != ".out.partial")
    assert visible == ["a", "b", "base"]
