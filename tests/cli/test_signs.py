import json

import pytest
from safetensors.torch import load_file


def test_signs_go_into_a_merge(alliage, workspace):
    done = alliage("signs topics --base base -o oracle.safetensors")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("oracle.safetensors: ")
    assert "up" in done.stdout
    line = "merge --method ties --signs oracle.safetensors --base base sentiment topics -o out"
    shown = alliage(f"{line} --dry-run").stdout
    assert any(row.split() == ["signs", "oracle.safetensors"] for row in shown.splitlines())
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    assert alliage("verify out").returncode == 0
    signs, base, merged = (
        load_file(workspace / name)
        for name in ("oracle.safetensors", "base/model.safetensors", "out/model.safetensors")
    )
    for name, sign in signs.items():
        assert ((merged[name] - base[name]) * sign >= 0).all()


def test_json_is_all_of_stdout(alliage, workspace):
    done = alliage("signs topics --base base -o oracle.safetensors --json -q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    numel = sum(tensor.numel() for tensor in load_file("oracle.safetensors").values())
    assert document["positive"] + document["negative"] + document["zero"] == numel
    assert document["run"]["bytes_written"] == (workspace / "oracle.safetensors").stat().st_size


BOTH = "--task sentiment-data --task topics-data"


def test_signs_are_estimated_from_a_few_examples(alliage, workspace):
    line = f"signs sentiment topics --base base {BOTH} --examples 4 --steps 3 -o few.safetensors"
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    assert "trained on 4, 4 examples: the loss of a batch was " in done.stderr
    done = alliage(f"{line.replace('few.', 'base.')} --start base --split validation --json -q")
    document = json.loads(done.stdout)
    assert document["examples"] == [4, 4]
    assert (workspace / "few.safetensors").read_bytes() != (
        workspace / "base.safetensors"
    ).read_bytes()
    line = "merge --method ties --signs few.safetensors --base base sentiment topics -o out"
    assert alliage(line).returncode == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("signs topics --base base", "no output file"),
        ("signs topics -o signs.safetensors", "no base given"),
        ("signs a b --base base -o s.safetensors", "name a task for each"),
        ("signs a --base base --steps 3 -o s.safetensors", "--steps: go with examples"),
        ("signs a --base base --device cuda -o s.safetensors", "--device: go with examples"),
        (f"signs sentiment --base base {BOTH} -o s.safetensors", "1 model, but 2 tasks"),
        ("signs topics --base base -o signs", "Name it NAME.safetensors"),
        ("merge merge.yml --signs x.safetensors -o out", "--signs: go with --method"),
        ("merge --method average --signs x.safetensors sentiment -o out", "elects no signs"),
    ],
)
def test_usage_errors_exit_with_2_and_leave_nothing(alliage, workspace, line, message):
    before = sorted(workspace.iterdir())
    done = alliage(line)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert sorted(workspace.iterdir()) == before
