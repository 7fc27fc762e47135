import json

import pytest
import torch
from safetensors.torch import load_file


def weights(folder):
    return load_file(folder / "model.safetensors")


def body(folder):
    """The encoder of a classifier, by the base's names."""
    return {
        name.removeprefix("bert."): tensor
        for name, tensor in weights(folder).items()
        if name.startswith("bert.")
    }


def test_a_sum_of_full_models(alliage, workspace):
    line = 'arithmetic "2 * (sentiment - 0.25 * topics)" --base base -o out'
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out: base + 2 sentiment - 0.5 topics, ")
    assert ", 2 task heads beside it, in " in done.stdout
    base, found = weights(workspace / "base"), weights(workspace / "out")
    first, second = body(workspace / "sentiment"), body(workspace / "topics")
    assert found.keys() == base.keys()
    for name, tensor in base.items():
        expected = tensor.double() + 2 * (first[name].double() - tensor)
        expected -= 0.5 * (second[name].double() - tensor)
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-6, atol=1e-7)
    assert alliage("verify out").returncode == 0


def test_adapters_and_names(alliage, workspace):
    line = "arithmetic 'a - full' a=sentiment-lora full=topics --base base -o out --json -q"
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["terms"] == [
        {"name": "a", "model": "sentiment-lora", "weight": 1.0},
        {"name": "full", "model": "topics", "weight": -1.0},
    ]
    base, found = weights(workspace / "base"), weights(workspace / "out")
    factors = load_file(workspace / "sentiment-lora" / "adapter_model.safetensors")
    name = "encoder.layer.1.attention.self.value"
    A, B = (factors[f"base_model.model.bert.{name}.lora_{part}.weight"] for part in "AB")
    expected = base[f"{name}.weight"] + 2 * B @ A  # alpha / r = 4 / 2
    expected -= body(workspace / "topics")[f"{name}.weight"] - base[f"{name}.weight"]
    torch.testing.assert_close(found[f"{name}.weight"], expected, rtol=1e-5, atol=1e-6)


def test_what_cancels_out_is_said_and_not_read(alliage, workspace):
    done = alliage("arithmetic 'x + sentiment - x' x=nowhere --base base -o out --dtype bfloat16")
    assert done.returncode == 0, done.stderr
    assert "note: x cancels out." in done.stderr
    assert weights(workspace / "out")["pooler.dense.weight"].dtype == torch.bfloat16


def test_a_space_keeps_a_leading_minus_from_being_an_option(alliage, workspace):
    done = alliage("arithmetic ' -sentiment' --base base -o out")
    assert done.returncode == 0, done.stderr
    base, found = weights(workspace / "base"), weights(workspace / "out")
    for name, tensor in body(workspace / "sentiment").items():
        expected = base[name] - (tensor - base[name])
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("line", "code", "messages"),
    [
        ("sentiment", 2, ["--base: no base", "-o: no output folder", "2 problems"]),
        ("topic --base base", 2, ["-o: no output folder", "no model 'topic'", "2 problems"]),
        ("'sentiment * topics' --base base -o out", 2, ["column 1: '*' of two models"]),
        ("'sentiment - sentiment' --base base -o out", 2, ["nothing is left"]),
        ("sentiment --base base -o topics", 2, ["exists already"]),
        ("sentiment --base base -o out --dtype int8", 2, ["dtype"]),
        ("sentiment - topics --base base -o out", 2, ["Write the expression itself in quotes"]),
        ("'sentiment - data' data=sentiment-data --base base -o out", 1, ["no weights in it"]),
    ],
)
def test_refusals_name_the_reason_and_leave_nothing(alliage, workspace, line, code, messages):
    before = sorted(workspace.iterdir())
    done = alliage(f"arithmetic {line}")
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    for message in messages:
        assert message in done.stderr
    assert sorted(workspace.iterdir()) == before


@pytest.mark.parametrize("line", ["arithmetic sentiment --base base", "apply sentiment-lora"])
def test_what_was_interrupted_goes_on_with_resume(alliage, workspace, monkeypatch, line):
    from alliage.merging.engine import run as engine

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(engine, "write_provenance", interrupt)
        done = alliage(f"{line} -o out")
    assert done.returncode == 130
    assert "what is done is kept. Go on with --resume" in done.stderr
    done = alliage(f"{line} -o out")
    assert done.returncode == 2
    assert "Go on with --resume" in done.stderr
    done = alliage(f"{line} -o out --resume --threads 1 --memory 64MB")
    assert done.returncode == 0, done.stderr
    assert alliage("verify out").returncode == 0
    for option in ("--memory lots", "--threads 0"):
        assert alliage(f"{line} -o other {option}").returncode == 2
