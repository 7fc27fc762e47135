"""Every technique through `alliage.tune`, with transformers' Trainer itself."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import alliage
from alliage.checkpoints import provenance
from alliage.errors import UsageError
from alliage.tuning import parse_recipe
from tests.conftest import WORDS
from tests.tuning.test_states import contents, killed

SMALL = {"parameters": 8000, "depth": 2, "heads": 2}
IMAGES = {
    "task": "digits:loop", "model": "reference:vit", "reference": SMALL, "train_limit": 64,
    "epochs": 2, "batch_size": 16, "learning_rate": 1e-2,
}  # fmt: skip
EVERYTHING = {
    "optimizer": {"name": "lion", "betas": [0.9, 0.95]},
    "weight_decay": 0.1,
    "learning_rate": 1e-3,
    "schedule": {"name": "triangular", "cycles": 2},
    "clipping": {"norm": 1.0, "value": 0.05},
    "dropout": {"rate": 0.2, "mode": "early", "shape": "linear"},
    "stochastic_depth": {"rate": 0.3, "mode": "late"},
    "hyperspherical_energy": {"coefficient": 0.01},
    "deficit": {"kind": "noise", "end": 1},
    "initialisation": {"name": "orthogonal", "gain": "relu"},
    "fisher_trace": {"every": 3, "examples": 4},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What training makes without any of it."""
    out = tmp_path_factory.mktemp("plain") / "out"
    alliage.tune(**IMAGES, out=out)
    return weights(out)


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    """Texts with words of either mood."""
    home = tmp_path_factory.mktemp("moods")
    for split, count in (("train", 60), ("validation", 30)):
        generator = torch.Generator().manual_seed(count)
        rows = []
        for number in range(count):
            picked = torch.randint(7, 12, (3,), generator=generator)
            mood = ["bad", "awful"][number % 4 // 2] if number % 2 else "great"
            rows.append(f"{' '.join(WORDS[index] for index in picked)} {mood}\t{number % 2}")
        (home / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return home


def weights(folder):
    return load_file(folder / "model.safetensors")


def distance(first, second):
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("vit", {}),
        ("convnext", {}),
        ("blocks", {"feed_forward": "swiglu", "norm": "rms"}),
        ("blocks", {"feed_forward": "relu", "norm": "batch", "order": "post"}),
    ],
)
def test_reference_models_of_images_learn_and_load_in_evaluation(tmp_path, model, parts):
    """On the ten digits: of the larger class there is a tenth."""
    record = alliage.tune(
        model=f"reference:{model}", task="digits:digit", out=tmp_path / "out", epochs=6,
        reference={"parameters": 12_000, "depth": 2, **parts}, learning_rate=5e-3, warmup=0.1,
    )  # fmt: skip
    head = 11 * weights(tmp_path / "out")["classifier.weight"].shape[1] + 10
    assert record.parameters == pytest.approx(12_000 + head, rel=0.02)
    scores = alliage.evaluate(tmp_path / "out", "digits:digit")["digits:digit"]
    assert scores.metrics["accuracy"] > 0.5
    assert provenance.verify(tmp_path / "out")[1] == []
    assert provenance.read(tmp_path / "out")["inputs"] == []


@pytest.mark.parametrize("model", ["bert", "blocks"])
def test_reference_models_of_texts_bring_a_tokenizer(tmp_path, moods, model):
    settings = {
        "model": f"reference:{model}", "task": moods, "reference": SMALL, "epochs": 8,
        "batch_size": 8, "learning_rate": 1e-2,
    }  # fmt: skip
    alliage.tune(**settings, out=tmp_path / "out")
    scores = alliage.evaluate(tmp_path / "out", moods)[moods.name]
    assert scores.metrics["accuracy"] > 0.9
    alliage.tune(**settings, out=tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_forms_of_the_feed_forward_have_one_size():
    from alliage.tuning.science.reference import ReferenceSettings, _image_model, _size, fitted

    sizes = {}
    for form in ("relu", "gelu", "silu", "geglu", "swiglu"):
        settings = ReferenceSettings(parameters=50_000, feed_forward=form)
        config = fitted("blocks", settings, _image_model("blocks", settings, (8, 8)))
        sizes[form] = (config.hidden_size, _size(config))
    widths, counts = zip(*sizes.values(), strict=True)
    assert len(set(widths)) == 1
    assert max(abs(count - 50_000) for count in counts) < 500


@pytest.mark.parametrize("key", sorted(EVERYTHING.keys() - {"weight_decay", "learning_rate"}))
def test_each_setting_changes_what_is_learned_but_for_measuring(tmp_path, plain, key):
    alliage.tune(**IMAGES, **{key: EVERYTHING[key]}, out=tmp_path / "out")
    moved = distance(weights(tmp_path / "out"), plain)
    assert moved == 0 if key == "fisher_trace" else moved > 1e-4


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("sgd", "constant"), ("momentum", "cosine"), ("adagrad", "noam"), ("rmsprop", "constant")],
)
def test_optimisers_and_schedules_go_through_the_trainer(tmp_path, plain, name, schedule):
    settings = {**IMAGES, "optimizer": {"name": name}, "schedule": {"name": schedule}}
    if schedule == "noam":
        del settings["learning_rate"]
        settings["schedule"] = {"name": "noam", "warmup_steps": 2}
    alliage.tune(**settings, out=tmp_path / "out")
    assert 1e-5 < distance(weights(tmp_path / "out"), plain) < 10
    recorded = provenance.read(tmp_path / "out")["recipe"]
    assert ("learning_rate" in recorded) == (schedule != "noam")


def test_adamw_and_linear_by_name_are_the_defaults(tmp_path):
    named = {"optimizer": {"name": "adamw"}, "schedule": {"name": "linear"}}
    by_name = alliage.tune(**IMAGES, **named, clipping={"norm": 1.0}, out=tmp_path / "named")
    default = alliage.tune(**IMAGES, out=tmp_path / "default")  # the Trainer's AdamW is fused
    assert by_name.loss == pytest.approx(default.loss, rel=1e-4)
    other = alliage.tune(**IMAGES, schedule={"name": "constant"}, out=tmp_path / "other")
    assert other.loss != pytest.approx(default.loss, rel=1e-3)


def test_the_trace_is_written_beside_the_model(tmp_path):
    settings = {**IMAGES, "fisher_trace": {"every": 3, "examples": 4}}
    record = alliage.tune(**settings, out=tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "science.json").read_text())["fisher_trace"]
    assert rows == list(record.fisher_trace)
    assert sorted({row["step"] for row in rows}) == [0, 3, 6, 8]
    assert {row["layer"] for row in rows} == {
        "vit.layers.0", "vit.layers.1", "embeddings", "vit.layernorm", "head"
    }  # fmt: skip
    assert all(row["trace"] > 0 and row["standard_error"] > 0 for row in rows)
    total = sum(row["parameters"] for row in rows if row["step"] == 0)
    assert total == record.parameters


def test_a_deficit_that_never_ends_hides_the_labels(tmp_path, moods):
    settings = {
        "model": "reference:blocks", "task": moods, "reference": SMALL, "epochs": 10,
        "batch_size": 8, "learning_rate": 1e-2,
    }  # fmt: skip
    alliage.tune(**settings, deficit={"kind": "labels", "end": 10}, out=tmp_path / "out")
    scores = alliage.evaluate(tmp_path / "out", moods)[moods.name]
    assert scores.metrics["accuracy"] < 0.1  # the two names are exchanged


@pytest.mark.parametrize("at", [3, 7])
def test_a_killed_run_with_everything_ends_with_the_same_bytes(tmp_path, at):
    settings = {**IMAGES, **EVERYTHING, "epochs": 3, "save_every": 2}
    alliage.tune(**settings, out=tmp_path / "whole")
    killed({**settings, "out": tmp_path / "out"}, at)
    alliage.tune(**settings, out=tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert "science.json" in contents(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "reference:vitt"}, "no such reference model: vitt. Did you mean 'vit'"),
        ({"reference": {"norm": "rms"}}, "vit knows no norm; blocks does"),
        ({"model": "base"}, "reference is set, but model is no reference:NAME"),
        ({"method": "lora"}, "starts at random: method lora does not go"),
        (
            {"model": "base", "reference": {}, "initialisation": {"name": "normal"}},
            "initialisation is for model: reference:NAME",
        ),
        ({"schedule": {"name": "noam"}, "warmup": 0.1}, "noam decides learning_rate and warmup"),
        ({"schedule": {"name": "triangular"}, "warmup": 0.1}, "leave warmup out"),
        ({"optimizer": {"name": "lyon"}}, "optimizer.name: Input should be 'sgd', 'momentum'"),
        ({"dropout": {"rat": 0.1}}, "unknown key dropout.rat. Did you mean 'rate'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        parse_recipe({**IMAGES, **changes})


def test_what_model_and_task_cannot_have_is_said_together(tmp_path, moods):
    settings = {
        "model": "reference:blocks", "task": moods, "reference": SMALL, "out": tmp_path / "out",
        "deficit": {"kind": "blur", "end": 1},
        "hyperspherical_energy": {"coefficient": 0.1, "modules": ["conv"]},
    }  # fmt: skip
    with pytest.raises(UsageError) as caught:
        alliage.tune(**settings)
    assert len(caught.value.problems) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "digits:digit", "model": "reference:bert"}, "does not read image-class"),
        (
            {"reference": {"parameters": 1000, "depth": 24}},
            "the narrowest has .* more than the 1,000",
        ),
    ],
)
def test_a_reference_model_that_cannot_be_is_refused(tmp_path, changes, message):
    settings = {**IMAGES, **changes}
    with pytest.raises(UsageError, match=message):
        alliage.tune(**settings, out=tmp_path / "out")
