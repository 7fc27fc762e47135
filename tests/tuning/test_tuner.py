"""Tuning with transformers' Trainer and PEFT themselves, on a BERT of two layers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage import vectors
from alliage.checkpoints import provenance
from alliage.data import Task, load_task
from alliage.data.encoding import encoder_for
from alliage.errors import AlliageError, UsageError
from alliage.evaluation import load_classifier, predict
from alliage.evaluation.models import load_model
from alliage.tuning import tuner

SETTINGS = {"epochs": 30, "batch_size": 4, "seed": 3}
EPOCHS = {"ia3": 100}  # few parameters learn slowly
LEAST = {"full": 1, "lora": 1, "ia3": 0.75}  # accuracy; one answer for all has 0.5
RATES = {"full": 5e-3, "lora": 5e-2, "ia3": 0.3}
GOOD = ["the film was good", "a great book", "very good", "the book is great"]
BAD = ["the film was bad", "an awful book", "very bad", "the book is not good"]


def settings_of(method):
    return SETTINGS | {"epochs": EPOCHS.get(method, SETTINGS["epochs"])}


@pytest.fixture(scope="module")
def home(family, tmp_path_factory):
    """base, mood and tags to tune on, and models tuned on mood."""
    home = tmp_path_factory.mktemp("tuner")
    shutil.copytree(family / "base", home / "base")
    (home / "mood").mkdir()
    rows = [f"{text}\tpositive" for text in GOOD] + [f"{text}\tnegative" for text in BAD]
    for split in ("train", "validation"):
        (home / "mood" / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    (home / "one").mkdir()
    (home / "one" / "train.jsonl").write_text('{"text": "the film", "label": 0.5}')
    (home / "tags").mkdir()
    tags = "the\tO\nfilm\tB-WORK\nwas\tO\ngood\tO\n\nlong\tB-WORK\nbook\tI-WORK\nis\tO\nbad\tO\n"
    for split in ("train", "validation"):
        (home / "tags" / f"{split}.conll").write_text(tags)
    for method in RATES:
        alliage.tune(
            model=home / "base", task=home / "mood", method=method, out=home / method,
            learning_rate=RATES[method], **settings_of(method),
        )  # fmt: skip
    return home


def probabilities(home, name, task="mood"):
    loaded = load_task(home / task)
    with alliage.open(home / name) as checkpoint:
        classifier = load_classifier(checkpoint, loaded)
        answers = predict(classifier, loaded.splits["validation"])
    return answers.probabilities, answers.truth


@pytest.mark.parametrize("method", RATES)
def test_learns_what_can_be_learned(home, method):
    shares, labels = probabilities(home, method)
    assert (shares.argmax(axis=1) == labels).mean() >= LEAST[method]


def test_a_full_model_loads_in_transformers_and_answers_the_same(home):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(home / "full").eval()
    tokenizer = AutoTokenizer.from_pretrained(home / "full")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    shares, _ = probabilities(home, "full")
    with torch.inference_mode():
        for text, share in zip(GOOD + BAD, shares, strict=True):
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
            np.testing.assert_allclose(logits.softmax(0), share, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_an_adapter_loads_in_peft_and_answers_the_same(home, method):
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    model = AutoPeftModelForSequenceClassification.from_pretrained(home / method).eval()
    tokenizer = AutoTokenizer.from_pretrained(home / method)
    shares, _ = probabilities(home, method)
    with torch.inference_mode():
        for text, share in zip(GOOD + BAD, shares, strict=True):
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
            np.testing.assert_allclose(logits.softmax(0), share, atol=1e-5)


def test_an_adapter_holds_factors_and_its_head_only(home):
    names = set(load_file(home / "lora" / "adapter_model.safetensors"))
    assert {name.removeprefix("base_model.model.") for name in names} == {
        "classifier.weight",
        "classifier.bias",
        *(
            f"bert.encoder.layer.{layer}.attention.self.{kind}.lora_{factor}.weight"
            for layer in range(2)
            for kind in ("query", "value")
            for factor in "AB"
        ),
    }
    settings = json.loads((home / "lora" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(home / "base")
    assert settings["target_modules"] == ["query", "value"]


def test_scales_stand_on_keys_values_and_feed_forward_blocks(home):
    """PEFT's choice for BERT; its name output.dense is that of attention's last matrix, too."""
    stored = load_file(home / "ia3" / "adapter_model.safetensors")
    sizes = {"key": 16, "value": 16, "attention.output.dense": 16, ".output.dense": 32}
    for layer in range(2):
        for name, size in sizes.items():
            ends = (f"layer.{layer}{name}.ia3_l", f"layer.{layer}.attention.self.{name}.ia3_l",
                    f"layer.{layer}.{name}.ia3_l")  # fmt: skip
            [scale] = [tensor for key, tensor in stored.items() if key.endswith(ends)]
            assert scale.numel() == size
    assert sum(tensor.numel() for tensor in stored.values()) == 2 * (16 + 16 + 16 + 32) + 2 * 16 + 2
    vector = vectors.open(home / "ia3", home / "base")
    key = "encoder.layer.1.attention.self.key"
    base = load_file(home / "base" / "model.safetensors")[f"{key}.weight"]
    scales = stored[f"base_model.model.bert.{key}.ia3_l"]
    torch.testing.assert_close(vector.delta(f"{key}.weight"), (scales - 1) * base)
    assert (scales - 1).abs().max() > 0.01


def test_the_weights_are_those_of_the_trainer_run_plainly(home, tmp_path):
    from transformers import Trainer, TrainingArguments

    settings = {"epochs": 3, "batch_size": 2, "seed": 3, "learning_rate": 5e-3, "warmup": 0.25}
    alliage.tune(
        model=home / "base", task=home / "mood", out=tmp_path / "ours", group_by_length=False,
        weight_decay=0.1, **settings,
    )  # fmt: skip
    task = load_task(home / "mood")
    with alliage.open(home / "base") as base:
        torch.manual_seed(3)
        model, _ = load_model(base, task.kind, task.labels, head={})
        encoder = encoder_for(task.kind, base, model.config)
    arguments = TrainingArguments(
        tmp_path / "scratch", num_train_epochs=3, per_device_train_batch_size=2,
        learning_rate=5e-3, warmup_steps=0.25, weight_decay=0.1, seed=3, data_seed=3,
        remove_unused_columns=False, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    Trainer(
        model, arguments, encoder.collate, train_dataset=encoder.encode(task.splits["train"])
    ).train()
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(ours[name], tensor), name


def test_outputs_are_task_vectors_of_their_base(home):
    query = "encoder.layer.1.attention.self.query.weight"
    full = vectors.open(home / "full", home / "base")
    tuned = load_file(home / "full" / "model.safetensors")[f"bert.{query}"]
    base = load_file(home / "base" / "model.safetensors")[query]
    torch.testing.assert_close(full.delta(query), tuned - base)
    low_rank = vectors.open(home / "lora", home / "base")
    stored = load_file(home / "lora" / "adapter_model.safetensors")
    module = "base_model.model.bert.encoder.layer.1.attention.self.query"
    A, B = (stored[f"{module}.lora_{factor}.weight"] for factor in "AB")
    torch.testing.assert_close(low_rank.delta(query), 16 / 8 * B @ A)
    assert low_rank.delta(query).abs().max() > 0


@pytest.mark.parametrize("method", RATES)
def test_the_same_run_writes_the_same_bytes_whatever_the_callers_random_state(
    home, tmp_path, method
):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    alliage.tune(
        model=home / "base", task=home / "mood", method=method, out=tmp_path / "again",
        learning_rate=RATES[method], **settings_of(method),
    )  # fmt: skip
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    first = {file.name: file.read_bytes() for file in (home / method).iterdir()}
    again = {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()}
    for files in (first, again):
        del files["README.md"], files["training.json"]  # their own folder's name, and the time
    assert first == again


def test_the_record_says_what_the_head_decides_and_verifies(home):
    record = provenance.read(home / "lora")
    expected = {"task": "mood", "kind": "sequence-classification", "method": "lora"}
    assert {key: record[key] for key in expected} == expected
    assert record["labels"] == ["negative", "positive"]
    assert record["recipe"]["learning_rate"] == 5e-2
    files = [
        (source["role"], entry["file"]) for source in record["inputs"] for entry in source["files"]
    ]
    assert files == [
        ("base", "config.json"), ("base", "model.safetensors"),
        ("task", "train.tsv"), ("task", "validation.tsv"),
    ]  # fmt: skip
    assert provenance.verify(home / "lora")[1] == []


def test_a_model_for_the_same_labels_keeps_its_head_and_others_get_a_new_one(home, tmp_path):
    still = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-12}
    alliage.tune(model=home / "full", task=home / "mood", out=tmp_path / "same", **still)
    before = load_file(home / "full" / "model.safetensors")
    after = load_file(tmp_path / "same" / "model.safetensors")
    torch.testing.assert_close(after["classifier.weight"], before["classifier.weight"])

    task = tmp_path / "topic"
    task.mkdir()
    (task / "train.tsv").write_text("text\tlabel\nrain\tweather\ngoal\tsport\nsun\tweather\n")
    alliage.tune(model=home / "full", task=task, out=tmp_path / "other", **still)
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert (other["classifier.weight"] - before["classifier.weight"]).abs().max() > 1e-3
    name = "bert.encoder.layer.0.output.dense.weight"
    torch.testing.assert_close(other[name], before[name])


def test_tags_are_learned(home, tmp_path):
    alliage.tune(
        model=home / "base", task=home / "tags", out=tmp_path / "tags", learning_rate=5e-3,
        **SETTINGS,
    )  # fmt: skip
    scores = alliage.evaluate(tmp_path / "tags", home / "tags")["tags"]
    assert scores.metrics["f1"] == 1


def test_patience_ends_a_run_that_gets_no_better(home, tmp_path):
    worse = {"epochs": 50, "batch_size": 8, "learning_rate": 3.0}
    record = alliage.tune(
        model=home / "base", task=home / "mood", out=tmp_path / "out", patience=2, **worse
    )
    assert record.steps < 50


@pytest.mark.parametrize("method", RATES)
def test_the_head_can_go_first(home, tmp_path, method):
    """A later rate of nearly nothing shows what the first epochs moved: the head, and only it."""
    still = {"learning_rate": 1e-12, "model": home / "base", "task": home / "mood"}
    settings = still | {"method": method, "epochs": 1, "batch_size": 4}
    alliage.tune(**settings, out=tmp_path / "without")
    record = alliage.tune(**settings, head_epochs=3, head_learning_rate=0.1, out=tmp_path / "with")
    assert record.steps == (3 + 1) * 2
    body = sum(tensor.numel() for tensor in load_file(home / "base" / "model.safetensors").values())
    head = 2 * 16 + 2
    assert record.parameters == body + (head if method == "full" else record.trained)
    file = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    without, first = (load_file(tmp_path / name / file) for name in ("without", "with"))
    for name, tensor in first.items():
        moved = (tensor - without[name]).abs().max()
        assert (moved > 1e-3) if "classifier" in name else (moved < 1e-6), name


def test_progress_counts_steps_and_a_part_is_a_part(home, tmp_path):
    seen = []
    record = alliage.tune(
        model=home / "base", task=home / "mood", out=tmp_path / "out", epochs=2, batch_size=2,
        train_limit=4, on_event=lambda *event: seen.append(event),
    )  # fmt: skip
    assert seen == [("tuning", step, 4) for step in (1, 2, 3, 4)]
    assert (record.steps, record.task, record.method) == (4, "mood", "full")
    assert record.trained == sum(
        tensor.numel() for tensor in load_file(tmp_path / "out" / "model.safetensors").values()
    )


def test_an_image_task_trains_a_small_vision_transformer(tmp_path):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, initializer_range=0.2,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    alliage.tune(
        model=tmp_path / "base", task="digits:loop", method="lora", out=tmp_path / "loop",
        epochs=4, learning_rate=1e-2, lora={"rank": 4, "targets": ["query", "mlp"]},
    )  # fmt: skip
    scores = alliage.evaluate(tmp_path / "loop", "digits:loop")["digits:loop"]
    assert scores.metrics["accuracy"] > 0.7  # the larger class has 0.60
    with alliage.open(tmp_path / "loop") as adapter:
        assert len(adapter.adapter_modules) == 2 * 3


def broken(base):
    tensors = load_file(base / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = float("nan")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "lora", "lora": {"targets": ["qeury"]}}, UsageError, "Did you mean 'query'"),
        ({"model": "lora"}, UsageError, "is an adapter"),
        ({"model": "none"}, UsageError, "does not exist|hub"),
        ({"task": "moood"}, UsageError, "is no task"),
        ({"task": "one"}, AlliageError, "one example: none can be held out"),
        ({"epochz": 1}, UsageError, "Did you mean 'epochs'"),
        ({"model": "broken"}, AlliageError, "NaN or infinite"),
    ],
)
def test_a_run_that_fails_leaves_nothing_behind(home, tmp_path, change, error, message):
    settings = {"model": "base", "task": "mood", "epochs": 1, "batch_size": 8} | change
    if change.get("model") == "broken":
        shutil.copytree(home / "base", tmp_path / "broken")
        broken(tmp_path / "broken")
        settings["model"] = tmp_path / "broken"
    else:
        settings["model"] = home / settings["model"]
    settings["task"] = home / settings["task"]
    (tmp_path / "outputs").mkdir()
    with pytest.raises(error, match=message):
        alliage.tune(out=tmp_path / "outputs" / "out", **settings)
    assert not list((tmp_path / "outputs").iterdir())


def test_an_output_that_exists_is_refused_before_anything_is_read(home):
    with pytest.raises(UsageError, match="exists already"):
        alliage.tune(model="nowhere", task="nothing", out=home / "full")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_refused(split):
    task = Task("mood", "regression", (), {split: ()})
    with pytest.raises(UsageError, match=f"mood: {split}: holds no example"):
        tuner._labelled(task, split, task.splits[split])
