"""Language models against transformers' own losses and texts; regressions beside them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats

import alliage
from alliage.data import Example, Task
from alliage.errors import AlliageError
from alliage.evaluation import Misfit, load_classifier
from alliage.evaluation.writing import rank, write
from tests.conftest import WORDS, bert_config, save_tokenizer, shift

SOURCES = ["the film was", "good book", "a very long rain was not", "sun", "team"]
TARGETS = ["good", "the rain", "very very bad", "a goal team", "sun sun"]
WRITTEN = Task(
    "stories",
    "text-generation",
    (),
    {"validation": [Example((s,), t) for s, t in zip(SOURCES, TARGETS, strict=True)]},
)
CHOICES = Task(
    "endings",
    "multiple-choice",
    (),
    {
        "validation": [
            Example(("the film was", ("good", "very very bad")), 0),
            Example(("a book", ("sun", "the goal team", "is not good")), 2),
            Example(("the sun", ("was awful", "rain", "long")), 1),
        ]
    },
)


def add_end_token(folder):
    """The tests' tokenizer, with [SEP] as the token that ends a text."""
    from transformers import AutoTokenizer

    save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """gpt, its LoRA and (IA)3 adapters, t5, and a regression."""
    from peft import IA3Config, LoraConfig, get_peft_model
    from transformers import (
        BertForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    home = tmp_path_factory.mktemp("language")
    config = GPT2Config(
        vocab_size=5 + len(WORDS), n_positions=32, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=2, eos_token_id=3, initializer_range=0.5,
    )  # fmt: skip
    adapters = {
        "lora": LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM"),
        "ia3": IA3Config(
            target_modules=["c_attn", "mlp.c_proj"],
            feedforward_modules=["mlp.c_proj"],
            task_type="CAUSAL_LM",
        ),
    }
    for name in ("gpt", *adapters):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
        if name != "gpt":
            model = get_peft_model(model, adapters[name])
            for key, parameter in model.named_parameters():
                if "lora_" in key or "ia3" in key:
                    torch.nn.init.normal_(parameter, std=0.5)
            model.peft_config["default"].base_model_name_or_path = str(home / "gpt")
        model.save_pretrained(home / name)
    add_end_token(home / "gpt")
    torch.manual_seed(0)
    t5 = T5Config(
        vocab_size=5 + len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        pad_token_id=0, eos_token_id=3, decoder_start_token_id=0, initializer_factor=5.0,
    )  # fmt: skip
    T5ForConditionalGeneration(t5).save_pretrained(home / "t5")
    add_end_token(home / "t5")
    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config(num_labels=1, problem_type="regression"))
    shift(model, 1, 0.2)
    model.save_pretrained(home / "numbers")
    save_tokenizer(home / "numbers")
    return home


def classifier_of(folder, task):
    with alliage.open(folder) as checkpoint:
        return load_classifier(checkpoint, task)


def reference(home, name):
    """The model as transformers and PEFT load it, and its tokenizer."""
    from peft import PeftModel
    from transformers import AutoTokenizer, GPT2LMHeadModel, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(home / ("t5" if name == "t5" else "gpt"))
    if name == "t5":
        return T5ForConditionalGeneration.from_pretrained(home / "t5").eval(), tokenizer
    model = GPT2LMHeadModel.from_pretrained(home / "gpt").eval()
    if name != "gpt":
        model = PeftModel.from_pretrained(model, home / name).eval()
    return model, tokenizer


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", ["gpt", "lora", "ia3"])
def test_decoders_find_texts_as_likely_as_in_transformers(home, name):
    model, tokenizer = reference(home, name)
    found = write(classifier_of(home / name, WRITTEN), WRITTEN.splits["validation"], batch_size=3)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        prompt = ids_of(tokenizer, source)
        # The text that is to be written ends with the end token.
        wanted = [*ids_of(tokenizer, target), tokenizer.eos_token_id]
        with torch.inference_mode():
            output = model(
                input_ids=torch.tensor([prompt + wanted]),
                labels=torch.tensor([[-100] * len(prompt) + wanted]),
            )
        assert found.tokens[row] == len(wanted)
        assert found.losses[row] == pytest.approx(float(output.loss) * len(wanted), rel=1e-5)


def test_encoder_decoders_find_texts_as_likely_as_in_transformers(home):
    model, tokenizer = reference(home, "t5")
    found = write(classifier_of(home / "t5", WRITTEN), WRITTEN.splits["validation"], batch_size=3)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        labels = tokenizer(text_target=target, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            output = model(**tokenizer(source, return_tensors="pt"), labels=labels)
        assert found.tokens[row] == labels.shape[1]
        assert found.losses[row] == pytest.approx(float(output.loss) * labels.shape[1], rel=1e-5)


@pytest.mark.parametrize("name", ["gpt", "lora", "t5"])
def test_texts_are_those_of_generate_without_padding(home, name):
    model, tokenizer = reference(home, name)
    classifier = classifier_of(home / name, WRITTEN)
    found = write(classifier, WRITTEN.splits["validation"], batch_size=5, max_new_tokens=6)
    expected = []
    for source in SOURCES:
        ids = tokenizer(source, add_special_tokens=name == "t5", return_tensors="pt")
        ids.pop("token_type_ids", None)
        with torch.inference_mode():
            text = model.generate(**ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0]
        start = 0 if name == "t5" else ids["input_ids"].shape[1]
        expected.append(tokenizer.decode(text[start:], skip_special_tokens=True).strip())
    assert list(found.written) == expected
    assert len(set(expected)) > 1  # the models do say something


@pytest.mark.parametrize("name", ["gpt", "t5"])
def test_choices_are_ranked_by_their_mean_log_likelihood(home, name):
    model, tokenizer = reference(home, name)
    examples = CHOICES.splits["validation"]
    answers = rank(classifier_of(home / name, CHOICES), examples, batch_size=2)
    for row, example in enumerate(examples):
        prompt, choices = example.inputs
        for column, choice in enumerate(choices):
            if name == "gpt":
                given, wanted = ids_of(tokenizer, prompt), ids_of(tokenizer, choice)
                logits = model(torch.tensor([given + wanted])).logits[0, len(given) - 1 : -1]
            else:
                wanted = tokenizer(text_target=choice)["input_ids"]
                labels = torch.tensor([wanted])
                logits = model(**tokenizer(prompt, return_tensors="pt"), labels=labels).logits[0]
            each = logits.double().log_softmax(1)[torch.arange(len(wanted)), wanted]
            assert answers.logits[row, column] == pytest.approx(each.mean().item(), rel=1e-5)
    assert answers.logits[0, 2] == -np.inf  # two choices only
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1)
    scores = alliage.evaluate(home / name, CHOICES)["endings"]
    right = (answers.logits.argmax(axis=1) == [0, 2, 1]).mean()
    assert scores.metrics["accuracy"] == pytest.approx(right)


def test_the_scores_of_texts(home):
    scores = alliage.evaluate(home / "gpt", WRITTEN, max_new_tokens=6)["stories"]
    found = write(
        classifier_of(home / "gpt", WRITTEN), WRITTEN.splits["validation"], max_new_tokens=6
    )
    expected = np.exp(found.losses.sum() / found.tokens.sum())
    assert scores.metrics["perplexity"] == pytest.approx(expected)
    assert set(scores.metrics) == {"perplexity", "exact_match", "rouge1", "rouge2", "rougeL"}
    assert scores.intervals["perplexity"].low < expected < scores.intervals["perplexity"].high


def test_language_modelling_has_nothing_to_write(home):
    examples = [Example(("",), target) for target in TARGETS]
    task = Task("pages", "text-generation", (), {"validation": examples})
    assert set(alliage.evaluate(home / "gpt", task)["pages"].metrics) == {"perplexity"}


def test_a_text_leaves_room_for_its_prompt(home):
    """32 positions: 64 new tokens would go beyond them."""
    examples = WRITTEN.splits["validation"]
    found, shorter = (
        write(classifier_of(home / "gpt", WRITTEN), examples, max_new_tokens=count).written
        for count in (64, 16)
    )
    assert found == shorter


def test_an_example_is_cut_once(home):
    """32 positions, a source of 40 words."""
    examples = [Example((" ".join(["sun"] * 40),), "rain"), Example(("sun",), "rain")]
    task = Task("long", "text-generation", (), {"validation": examples})
    assert alliage.evaluate(home / "gpt", task)["long"].truncated == 1


def test_a_merged_decoder_writes_like_the_one_it_is_made_of(home, tmp_path):
    alliage.merge("average", models=[home / "gpt"], base=home / "gpt", out=tmp_path / "merged")
    found = [
        write(classifier_of(folder, WRITTEN), WRITTEN.splits["validation"])
        for folder in (home / "gpt", tmp_path / "merged")
    ]
    np.testing.assert_allclose(found[0].losses, found[1].losses, rtol=1e-5)
    assert found[0].written == found[1].written


def test_encoders_and_classifiers_cannot_write(family):
    with pytest.raises(Misfit, match=r"is an encoder \(bert\): it cannot write texts"):
        classifier_of(family / "base", WRITTEN)


def test_a_body_without_its_language_head_cannot_write(home, tmp_path):
    shutil.copytree(home / "gpt", tmp_path / "gpt")
    path = tmp_path / "gpt" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(Misfit, match=r"lm_head\.weight: expected by GPT2LMHeadModel"):
        classifier_of(tmp_path / "gpt", WRITTEN)


@pytest.mark.parametrize(("task", "run"), [(WRITTEN, write), (CHOICES, rank)])
def test_nan_names_the_first_example(home, tmp_path, task, run):
    shutil.copytree(home / "gpt", tmp_path / "gpt")
    tensors = load_file(tmp_path / "gpt" / "model.safetensors")
    tensors["transformer.ln_f.weight"].fill_(float("nan"))
    save_file(tensors, tmp_path / "gpt" / "model.safetensors", {"format": "pt"})
    with pytest.raises(AlliageError, match=f"gpt on {task.name}: example 1 'the film was'.*NaN"):
        run(classifier_of(tmp_path / "gpt", task), task.splits["validation"])


NUMBERS = [
    Example((word, other), 0.5 * index)
    for index, (word, other) in enumerate(zip(WORDS, WORDS[::-1], strict=True))
]


def test_a_regression_answers_and_scores_as_in_transformers_and_scipy(home):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(home / "numbers").eval()
    tokenizer = AutoTokenizer.from_pretrained(home / "numbers")
    with torch.inference_mode():
        answers = [
            float(model(**tokenizer(*e.inputs, return_tensors="pt")).logits) for e in NUMBERS
        ]
    truth = [example.label for example in NUMBERS]
    scores = alliage.evaluate(
        home / "numbers", Task("stsb", "regression", (), {"validation": NUMBERS}), batch_size=4
    )["stsb"]
    pearson, spearman = (of(truth, answers)[0] for of in (stats.pearsonr, stats.spearmanr))
    assert scores.metrics == pytest.approx(
        {
            "pearson": pearson,
            "spearman": spearman,
            "mse": np.mean((np.array(truth) - answers) ** 2),
            "glue": (pearson + spearman) / 2,
        },
        rel=1e-4,
    )
    assert set(scores.intervals) == set(scores.metrics)
    assert scores.reliability == ()


def test_labels_and_numbers_are_not_mixed_up(home, family):
    numbers = Task("n", "regression", (), {"validation": NUMBERS})
    with pytest.raises(Misfit, match="has 2 outputs, a regression one"):
        classifier_of(family / "sentiment", numbers)
    labels = Task("l", "sequence-classification", ("a", "b"), {"validation": NUMBERS})
    with pytest.raises(Misfit, match="has 1 outputs, the task 2 labels"):
        classifier_of(home / "numbers", labels)
