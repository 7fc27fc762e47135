"""Regressions and language models are tuned too, and answer afterwards."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import alliage
from alliage.data import Example, Task
from alliage.data.task import Selection
from alliage.errors import UsageError
from alliage.tuning import tuner
from tests.conftest import WORDS, save_tokenizer

COUNTRIES = [("the film", "good"), ("a book", "bad"), ("sun", "long"), ("rain", "short")]
ENDINGS = Task(
    "endings",
    "multiple-choice",
    (),
    {
        split: tuple(
            Example((prompt, tuple(right for _, right in COUNTRIES)), number)
            for number, (prompt, _) in enumerate(COUNTRIES)
        )
        for split in ("train", "validation")
    },
)
STORIES = Task(
    "stories",
    "text-generation",
    (),
    {
        split: tuple(Example((prompt,), f"is {end}") for prompt, end in COUNTRIES)
        for split in ("train", "validation")
    },
)
STARS = Task(
    "stars",
    "regression",
    (),
    {
        split: tuple(Example((f"{end} team",), value) for value, (_, end) in enumerate(COUNTRIES))
        for split in ("train", "validation")
    },
)
# Targets of one to four words.
TALES = dataclasses.replace(
    STORIES,
    name="tales",
    splits={
        split: tuple(
            Example((prompt,), " ".join([end] * length))
            for length, (prompt, end) in enumerate(COUNTRIES, start=1)
        )
        for split in ("train", "validation")
    },
)
# A number that stands for no label elsewhere.
DEPTHS = dataclasses.replace(
    STARS,
    name="depths",
    splits={
        split: tuple(one._replace(label=-100.0 if one.label else 3.0) for one in examples)
        for split, examples in STARS.splits.items()
    },
)
# The last sentence is of nothing that a tokenizer knows.
TAGGED = Task(
    "tagged",
    "token-classification",
    ("NOUN", "X"),
    {
        split: (
            Example(("sun",), (0,)),
            Example(("the", "film"), (1, 0)),
            Example(("a", "good", "book"), (1, 1, 0)),
            Example((" ",), (1,)),
        )
        for split in ("train", "validation")
    },
)
TASKS = {task.name: task for task in (ENDINGS, STORIES, STARS, TALES, DEPTHS, TAGGED)}


@pytest.fixture(scope="module")
def home(family, tmp_path_factory):
    """A decoder and an encoder-decoder without dropout, and an encoder."""
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        AutoTokenizer,
        GPT2Config,
        GPT2LMHeadModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    home = tmp_path_factory.mktemp("kinds")
    torch.manual_seed(0)
    gpt = GPT2Config(
        vocab_size=5 + len(WORDS), n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=2,
        eos_token_id=3, initializer_range=0.3, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    GPT2LMHeadModel(gpt).save_pretrained(home / "gpt")
    t5 = T5Config(
        vocab_size=5 + len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        pad_token_id=0, eos_token_id=3, decoder_start_token_id=0, dropout_rate=0,
    )  # fmt: skip
    T5ForConditionalGeneration(t5).save_pretrained(home / "t5")
    for name in ("gpt", "t5"):
        save_tokenizer(home / name)
        tokenizer = AutoTokenizer.from_pretrained(home / name)
        tokenizer.eos_token = "[SEP]"
        if name == "t5":  # T5's own ends every text
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single="$A [SEP]", special_tokens=[("[SEP]", 3)]
            )
        tokenizer.save_pretrained(home / name)
    shutil.copytree(family / "base", home / "bert")
    tokenizer = AutoTokenizer.from_pretrained(home / "bert")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 3)]
    )
    tokenizer.save_pretrained(home / "bert")
    return home


@pytest.fixture(autouse=True)
def _tasks(monkeypatch):
    """The tasks above by their names, in place of files."""
    monkeypatch.setattr(tuner, "load_task", TASKS.__getitem__)


@pytest.mark.parametrize("model", ["gpt", "t5"])
@pytest.mark.parametrize("method", ["full", "lora", "ia3"])
def test_choices_are_learned_with_every_method(home, tmp_path, model, method):
    rates = {"full": 1e-2, "lora": 5e-2, "ia3": 0.5}
    before = alliage.evaluate(home / model, ENDINGS)["endings"].metrics["accuracy"]
    settings = {"method": "lora", "lora": {"targets": ["qkv"]}} if model == "gpt" else {}
    settings = settings if method == "lora" else {"method": method}
    alliage.tune(
        model=home / model, task="endings", out=tmp_path / "out", epochs=60, batch_size=4,
        **{"method": method, "learning_rate": rates[method]} | settings,
    )  # fmt: skip
    after = alliage.evaluate(tmp_path / "out", ENDINGS)["endings"].metrics["accuracy"]
    assert before < 1
    assert after == 1


@pytest.mark.parametrize("model", ["gpt", "t5"])
def test_texts_are_learned_and_written_by_transformers(home, tmp_path, model):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    alliage.tune(
        model=home / model, task="stories", out=tmp_path / "out", epochs=60, batch_size=4,
        learning_rate=1e-2,
    )  # fmt: skip
    architecture = AutoModelForCausalLM if model == "gpt" else AutoModelForSeq2SeqLM
    tuned = architecture.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for prompt, end in COUNTRIES:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        written = tuned.generate(ids, max_new_tokens=6, do_sample=False)[0]
        if model == "gpt":
            written = written[ids.shape[1] :]
        assert tokenizer.decode(written, skip_special_tokens=True) == f"is {end}"


def test_the_loss_is_transformers_own_over_the_tokens_of_the_targets(home, tmp_path):
    from transformers import AutoTokenizer, GPT2LMHeadModel

    record = alliage.tune(
        model=home / "gpt", task="stories", out=tmp_path / "out", epochs=1, batch_size=4,
        gradient_accumulation=2, learning_rate=1e-12,
    )  # fmt: skip
    model = GPT2LMHeadModel.from_pretrained(home / "gpt").eval()
    tokenizer = AutoTokenizer.from_pretrained(home / "gpt")
    total, count = 0.0, 0
    for prompt, end in COUNTRIES:
        given = tokenizer(prompt).input_ids
        ids = torch.tensor([given + tokenizer(f"is {end}").input_ids + [3]])
        with torch.inference_mode():
            shares = model(ids).logits.log_softmax(-1)[0, len(given) - 1 : -1]
        found = shares.gather(1, ids[0, len(given) :, None])
        total, count = total - found.sum().item(), count + len(found)
    assert record.loss == pytest.approx(total / count, rel=1e-5)
    assert count == 4 * 3


@pytest.mark.parametrize(
    ("model", "task"),
    [("gpt", "tales"), ("t5", "tales"), ("t5", "endings"), ("bert", "depths"), ("bert", "tagged")],
)
def test_a_steps_parts_make_the_step_of_the_whole(home, tmp_path, model, task):
    # Plain SGD: a gradient of another size gives other weights.
    still = {"dropout": {"rate": 0.0, "mode": "standard"}} if model == "bert" else {}
    settings = {
        **still, "model": home / model, "task": task, "epochs": 2, "batch_size": 4,
        "learning_rate": 0.01, "optimizer": {"name": "sgd"}, "group_by_length": False,
    }  # fmt: skip
    whole, parts = (
        alliage.tune(**settings, gradient_accumulation=count, out=tmp_path / f"out{count}")
        for count in (1, 4)
    )
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    before = load_file(home / model / "model.safetensors")
    one, four = (load_file(tmp_path / f"out{count}" / "model.safetensors") for count in (1, 4))
    for name, tensor in one.items():
        moved = (tensor - before.get(name.removeprefix("bert."), tensor)).abs().max()
        assert (four[name] - tensor).abs().max() <= 0.01 * moved + 1e-7, name


@pytest.mark.parametrize(("name", "max_length", "cut"), [("stories", 3, 0), ("stars", 1, 8)])
def test_splits_that_are_not_in_memory_give_the_same_weights(
    home, family, tmp_path, name, max_length, cut
):
    task = TASKS[name]
    lazy = {split: Selection(given, np.arange(len(given))) for split, given in task.splits.items()}
    TASKS["lazy"] = dataclasses.replace(task, splits=lazy)
    settings = {
        "model": family / "base" if name == "stars" else home / "t5", "epochs": 3, "batch_size": 2,
        "patience": 1, "learning_rate": 1e-2, "max_length": max_length,
    }  # fmt: skip
    eager = alliage.tune(**settings, task=name, group_by_length=False, out=tmp_path / "eager")
    for group in (False, True):
        out = tmp_path / f"lazy-{group}"
        record = alliage.tune(**settings, task="lazy", group_by_length=group, out=out)
        assert record.truncated == eager.truncated == cut
        if not group:
            first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("eager", out))
            assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_hidden_labels_cannot_be_learned(family, tmp_path):
    hidden = tuple(example._replace(label=None) for example in STARS.splits["train"])
    TASKS["hidden"] = dataclasses.replace(STARS, splits={"train": hidden})
    with pytest.raises(UsageError, match="stars: train: has no labels"):
        alliage.tune(model=family / "base", task="hidden", out=tmp_path / "out")


def test_half_precision_is_near_and_keeps_float32_weights(home, tmp_path):
    settings = {"model": home / "gpt", "task": "stories", "epochs": 2, "batch_size": 4}
    half = alliage.tune(**settings, precision="bfloat16", out=tmp_path / "half")
    full = alliage.tune(**settings, out=tmp_path / "full")
    assert half.loss != full.loss
    assert half.loss == pytest.approx(full.loss, rel=0.01)
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_scales_of_an_encoder_decoder_stand_where_the_paper_has_them(home, tmp_path):
    """Keys and values of all attention, and the inputs of the last feed-forward matrix."""
    record = alliage.tune(
        model=home / "t5", task="stories", out=tmp_path / "out", method="ia3", epochs=1,
        batch_size=4,
    )  # fmt: skip
    # Encoder: 2 layers of k, v, wo; decoder: 2 layers of k, v twice, and wo.
    assert record.trained == 2 * (16 + 16 + 32) + 2 * (4 * 16 + 32)
    assert len(load_file(tmp_path / "out" / "adapter_model.safetensors")) == 2 * 3 + 2 * 5
    base = load_file(home / "t5" / "model.safetensors")
    assert record.parameters == record.trained + sum(tensor.numel() for tensor in base.values())


def test_numbers_are_learned_and_a_second_tuning_keeps_their_head(family, tmp_path):
    settings = {"task": "stars", "batch_size": 4, "learning_rate": 5e-3}
    alliage.tune(model=family / "base", out=tmp_path / "first", epochs=80, **settings)
    scores = alliage.evaluate(tmp_path / "first", STARS)["stars"]
    assert scores.metrics["pearson"] > 0.99
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    assert config["problem_type"] == "regression"
    still = settings | {"learning_rate": 1e-12}
    alliage.tune(model=tmp_path / "first", out=tmp_path / "second", epochs=1, **still)
    head = [
        load_file(tmp_path / name / "model.safetensors")["classifier.weight"]
        for name in ("first", "second")
    ]
    assert head[0].shape == (1, 16)
    torch.testing.assert_close(*head)
