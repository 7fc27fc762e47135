"""Signs from a few examples, against a training loop of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

from alliage.errors import UsageError
from alliage.merging import plan, run
from alliage.search.few_shot import Settings, few_shot_signs

NAMES = ("sentiment", "topics")


@pytest.fixture
def labelled(tasks):
    return [replace(task, splits={"train": task.splits["validation"]}) for task in tasks]


def trained(family, tasks, settings):
    """sgn(θ − θ_base) of one BertModel under two frozen heads, by plain torch."""
    base = BertModel.from_pretrained(family / "base").state_dict()
    models = [BertForSequenceClassification.from_pretrained(family / name) for name in NAMES]
    body = models[0].bert
    mean = {
        name: (models[0].bert.state_dict()[name] + models[1].bert.state_dict()[name]) / 2
        for name in base
    }
    body.load_state_dict(mean if settings.start == "mean" else base)
    models[1].bert = body
    tokenizer = AutoTokenizer.from_pretrained(family / "base")
    optimiser = torch.optim.Adam(body.parameters(), lr=settings.learning_rate)
    losses = []
    for _ in range(settings.steps):
        total = 0.0
        for model, task in zip(models, tasks, strict=True):
            texts = [example.inputs[0] for example in task.splits["train"]]
            labels = torch.tensor([example.label for example in task.splits["train"]])
            logits = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
            total = total + cross_entropy(logits, labels) / len(tasks)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    return {name: (p.detach() - base[name]).sign() for name, p in body.named_parameters()}, losses


@pytest.mark.parametrize("start", ["mean", "base"])
def test_the_signs_are_those_of_a_body_trained_on_all_tasks(family, labelled, tmp_path, start):
    settings = Settings(start=start, steps=6, learning_rate=3e-3, batch_size=50)
    models, out = [str(family / name) for name in NAMES], tmp_path / "signs.safetensors"
    found = few_shot_signs(models, labelled, out, settings, base=str(family / "base"))
    expected, losses = trained(family, labelled, settings)
    assert found.examples == (21, 21)
    assert found.losses == pytest.approx(losses, abs=1e-4)
    assert found.losses[-1] < found.losses[0]
    signs = load_file(out)
    assert signs.keys() == expected.keys()
    for name, sign in signs.items():
        # No softmax depends on the keys' bias: its gradient is rounding alone.
        if not name.endswith("key.bias"):
            assert (sign == expected[name]).float().mean() > 0.99, name
    counted = sum(int((sign > 0).sum()) for sign in signs.values())
    assert counted == found.signs.positive
    assert not list(tmp_path.glob(".*"))


def test_a_merge_takes_them(family, labelled, recipe, tmp_path):
    out = tmp_path / "signs.safetensors"
    models = [str(family / name) for name in NAMES]
    few_shot_signs(models, labelled, out, Settings(steps=2), base=str(family / "base"))
    run(plan(recipe(signs=str(out))), tmp_path / "merged")
    base, merged, signs = (
        load_file(path)
        for path in (
            family / "base" / "model.safetensors", tmp_path / "merged" / "model.safetensors", out
        )
    )  # fmt: skip
    for name, sign in signs.items():
        assert ((merged[name] - base[name]) * sign >= 0).all()
    with safe_open(out, "pt") as file:
        noted = json.loads(file.metadata()["alliage.training"])
    assert noted["settings"]["steps"] == 2
    assert [data["task"] for data in noted["data"]] == ["mood", "themes"]


def test_the_same_run_writes_the_same_file(family, labelled, tmp_path):
    models = [str(family / name) for name in ("sentiment-lora", "topics-lora")]
    settings = Settings(steps=3, batch_size=4)
    for name in "ab":
        few_shot_signs(models, labelled, tmp_path / f"{name}.safetensors", settings, examples=8)
    one, other = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "ab")
    assert one == other


def test_what_cannot_be_estimated_is_refused_by_name(family, labelled, tmp_path):
    models = [str(family / name) for name in NAMES]
    out = tmp_path / "signs.safetensors"
    written = replace(labelled[0], name="tales", kind="text-generation")
    with pytest.raises(UsageError) as caught:
        few_shot_signs(models, [written], out, Settings())
    kinds, counts = caught.value.problems
    assert (kinds.where, "is a text-generation task" in kinds.what) == ("tales", True)
    assert counts.what == "2 models, but 1 tasks."
    with pytest.raises(UsageError, match="needs the models' common base"):
        few_shot_signs(models, labelled, out, Settings())
    with pytest.raises(UsageError, match=r"Name it NAME\.safetensors"):
        few_shot_signs(models, labelled, tmp_path / "signs", Settings())
    assert not list(tmp_path.iterdir())


def test_adapters_of_two_bases_are_refused_as_a_merge_refuses_them(family, labelled, tmp_path):
    for name in NAMES:
        shutil.copytree(family / f"{name}-lora", tmp_path / name)
    shutil.copytree(family / "base", tmp_path / "other")
    path = tmp_path / "topics" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "other")}))
    models, out = [str(tmp_path / name) for name in NAMES], tmp_path / "signs.safetensors"
    with pytest.raises(UsageError, match="needs the models' common base"):
        few_shot_signs(models, labelled, out, Settings(steps=1))
    assert not out.exists()


def test_a_folder_is_made_for_the_file(family, labelled, tmp_path):
    models, out = [str(family / name) for name in NAMES], tmp_path / "new" / "folder" / "s"
    out = out.with_suffix(".safetensors")
    few_shot_signs(models, labelled, out, Settings(steps=1), base=str(family / "base"))
    assert [item.name for item in out.parent.iterdir()] == ["s.safetensors"]


@pytest.mark.parametrize("start", ["mean", "base"])
def test_a_head_that_is_merged_is_not_trained(family, labelled, tmp_path, start):
    """Where models and base decide the same, all have one head: the models' mean."""
    draw = torch.Generator().manual_seed(0)
    for name in ("base", "a", "b"):
        shutil.copytree(family / "sentiment", tmp_path / name)
        path = tmp_path / name / "model.safetensors"
        moved = {
            n: t + 0.05 * torch.randn(t.shape, generator=draw) for n, t in load_file(path).items()
        }
        save_file(moved, path, {"format": "pt"})
    models, out = [str(tmp_path / name) for name in "ab"], tmp_path / "s.safetensors"
    tasks = [labelled[0], replace(labelled[0], name="other")]
    settings = Settings(start=start, steps=3, learning_rate=0.5)
    few_shot_signs(models, tasks, out, settings, base=str(tmp_path / "base"))
    base, a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("base", "a", "b"))
    signs = load_file(out)
    agreeing = {
        name: float((sign == (a[name] + b[name] - 2 * base[name]).sign()).float().mean())
        for name, sign in signs.items()
    }
    # Steps of 0.5 carry everything that is trained away from where it was.
    assert agreeing["classifier.weight"] == agreeing["classifier.bias"] == 1
    assert agreeing["bert.pooler.dense.weight"] < 0.9


@pytest.mark.parametrize("start", ["mean", "base"])
def test_running_means_are_not_trained(residual, tmp_path, start):
    """A ResNet's: no gradient reaches them; their signs are those of the models' mean."""
    home, tasks = residual
    models, out = [str(home / name) for name in "ab"], tmp_path / "s.safetensors"
    settings = Settings(start=start, steps=3, learning_rate=0.5)
    found = few_shot_signs(models, tasks, out, settings, base=str(home / "base"))
    assert found.losses[0] != found.losses[-1]
    base, a, b = (load_file(home / n / "model.safetensors") for n in ("base", "a", "b"))
    signs, kept = load_file(out), []
    for name, sign in signs.items():
        mean = (a[f"resnet.{name}"] + b[f"resnet.{name}"] - 2 * base[name]).sign()
        if bool((sign == mean).all()):
            kept.append(name)
    buffers = {n for n in signs if n.endswith(("running_mean", "running_var"))}
    assert buffers
    assert buffers <= set(kept)
    assert len(kept) < len(signs) / 2 + len(buffers)
