"""Runs that are killed and go on, with transformers' Trainer itself."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

import alliage
from alliage.data import load_task
from alliage.data.encoding import encoder_for
from alliage.errors import UsageError
from alliage.evaluation.models import load_model
from alliage.tuning import tuner
from tests.conftest import WORDS

DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


@pytest.fixture(scope="module")
def home(family, tmp_path_factory):
    """A base with dropout, and texts of many lengths."""
    home = tmp_path_factory.mktemp("states")
    shutil.copytree(family / "base", home / "base")
    config = home / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | DROPOUT))
    (home / "mood").mkdir()
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 22), ("validation", 9)):
        rows = []
        for number in range(count):
            picked = torch.randint(len(WORDS), (2 + number % 7,), generator=generator)
            rows.append(f"{' '.join(WORDS[index] for index in picked)}\t{'ab'[number % 2]}")
        (home / "mood" / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return home


def killed(settings, at):
    """Run in another process, which is killed after a step of the whole run."""

    def run():
        seen = iter(range(1, at + 1))

        def kill(*_):
            if next(seen) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        alliage.tune(on_event=kill, **settings)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def contents(folder):
    differing = ("README.md", "training.json")  # they hold the folder's name, and the time
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in differing}


# 22 examples in batches of 4: 6 steps an epoch.
@pytest.mark.parametrize(
    ("changes", "at", "goes_on_from"),
    [
        ({"save_every": 4}, 11, ("tuning", 8)),
        ({"save_every": 6}, 8, ("tuning", 6)),
        ({"save_every": 4, "method": "lora", "learning_rate": 0.01}, 11, ("tuning", 8)),
        ({"save_every": 5, "method": "ia3", "group_by_length": False}, 13, ("tuning", 10)),
        ({"patience": 2, "epochs": 30, "learning_rate": 0.02}, 14, ("tuning", 12)),
        ({"patience": 3, "eval_every": 2, "save_every": 3, "learning_rate": 0.1}, 6, ("tuning", 5)),
        ({"save_every": 4, "head_epochs": 2}, 11, ("head", 8)),
        ({"save_every": 4, "head_epochs": 2}, 20, ("tuning", 4)),
        ({"save_every": 3, "max_steps": 10, "gradient_accumulation": 2}, 7, ("tuning", 6)),
    ],
)
def test_a_killed_run_ends_with_the_same_bytes(home, tmp_path, changes, at, goes_on_from):
    settings = {
        "model": home / "base", "task": home / "mood", "learning_rate": 5e-3, "batch_size": 4,
        "seed": 5,
    } | changes  # fmt: skip
    if "max_steps" not in changes:
        settings.setdefault("epochs", 3)
    whole = alliage.tune(**settings, out=tmp_path / "whole")
    killed(settings | {"out": tmp_path / "out"}, at)
    assert not (tmp_path / "out").exists()
    journal = (tmp_path / ".out.partial" / "journal").read_text().splitlines()
    entry = json.loads(journal[-1])
    assert (entry["stage"], entry["step"]) == goes_on_from
    if "patience" in changes:
        assert whole.steps < 6 * settings["epochs"]
    seen = []
    resumed = alliage.tune(
        **settings, out=tmp_path / "out", resume=True, on_event=lambda *event: seen.append(event)
    )
    assert seen[0][1] == goes_on_from[1] + 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert (resumed.steps, resumed.evaluations) == (whole.steps, whole.evaluations)
    assert resumed.loss == pytest.approx(whole.loss, rel=1e-5)  # sums of float32, cut elsewhere
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_run_that_is_killed_after_its_last_step_is_not_trained_further(
    home, tmp_path, monkeypatch
):
    settings = {
        "model": home / "base", "task": home / "mood", "learning_rate": 5e-4, "batch_size": 4,
        "max_steps": 8, "patience": 1, "eval_every": 8,
    }  # fmt: skip
    whole = alliage.tune(**settings, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(tuner, "save", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        process = multiprocessing.get_context("fork").Process(
            target=lambda: alliage.tune(**settings, out=tmp_path / "out")
        )
        process.start()
        process.join()
    resumed = alliage.tune(
        **settings, out=tmp_path / "out", resume=True, on_event=lambda *_: pytest.fail("trained")
    )
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert (resumed.steps, resumed.evaluations) == (8, whole.evaluations)


def test_another_run_does_not_go_on_and_a_new_one_says_what_is_there(home, tmp_path):
    settings = {
        "model": home / "base", "task": home / "mood", "batch_size": 4, "epochs": 2,
        "out": tmp_path / "out", "save_every": 2,
    }  # fmt: skip
    killed(settings, 5)
    with pytest.raises(UsageError, match=r"left its work.*Go on with --resume"):
        alliage.tune(**settings)
    with pytest.raises(UsageError, match=r"was another one: recipe seed was 0, now 1"):
        alliage.tune(**settings | {"seed": 1}, resume=True)
    states = tmp_path / ".out.partial" / "states" / "tuning"
    assert [path.name for path in states.iterdir()] == ["checkpoint-4"]
    moving = load_file(states / "checkpoint-4" / "moving.safetensors")
    assert "bert.encoder.layer.0.attention.self.query.weight" in moving


def test_a_run_that_is_killed_before_its_first_state_is_no_obstacle(home, tmp_path):
    settings = {
        "model": home / "base", "task": home / "mood", "batch_size": 4, "epochs": 1,
        "out": tmp_path / "out",
    }  # fmt: skip
    killed(settings, 2)
    alliage.tune(**settings)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_best_weights_of_a_model_whose_files_have_other_names_are_kept(tmp_path):
    """The Trainer's own way of loading looks for a ViT's names in memory, and finds none."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    settings = {
        "model": tmp_path / "base", "task": "digits:loop", "learning_rate": 0.3, "train_limit": 64,
        "patience": 2, "eval_every": 1,
    }  # fmt: skip
    record = alliage.tune(**settings, epochs=20, out=tmp_path / "out")
    losses = [evaluation.loss for evaluation in record.evaluations]
    assert losses.index(min(losses)) == len(losses) - 3
    task = load_task("digits:loop")
    with alliage.open(tmp_path / "out") as checkpoint:
        model, _ = load_model(checkpoint, task.kind, task.labels)
        encoder = encoder_for(task.kind, checkpoint, model.config)
    examples = task.splits["validation"]
    with torch.inference_mode():
        found = model.eval()(**encoder.collate(encoder.encode(examples))).loss
    assert found.item() == pytest.approx(min(losses), rel=1e-4)
