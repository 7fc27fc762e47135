"""Rows for language models, judged by transformers' own models and tokenizers."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from alliage.data import Example
from alliage.data.encoding import IGNORED, CausalEncoder, Seq2SeqEncoder

TEXTS = ["the film was good", "the film was not good at all", "Is it raining? yes it is", "no rain"]


def trained(model, trainer, before, after=None, **special):
    made = Tokenizer(model)
    made.pre_tokenizer = before
    made.train_from_iterator(TEXTS * 3, trainer)
    if after is not None:
        made.post_processor = after(made)
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


@pytest.fixture(scope="module")
def gpt():
    """Bytes and merges, as GPT-2: words carry the space before them, no start token is put."""
    tokenizer = trained(
        models.BPE(),
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=["<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        lambda _: processors.ByteLevel(trim_offsets=False),
        eos_token="<|end|>", bos_token="<|end|>", pad_token="<|end|>",
    )  # fmt: skip
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="module")
def llama():
    """Metaspace, as sentencepiece has it, and a start token before each text."""
    return trained(
        models.BPE(unk_token="<unk>"),
        trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"]),
        pre_tokenizers.Metaspace(),
        lambda made: processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)]),
        bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>",
    )  # fmt: skip


@pytest.fixture(scope="module")
def t5():
    return trained(
        models.BPE(unk_token="<unk>"),
        trainers.BpeTrainer(vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"]),
        pre_tokenizers.Metaspace(),
        lambda made: processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)]),
        eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
    )  # fmt: skip


def targets(row):
    return [label for label in row["labels"] if label != IGNORED]


@pytest.mark.parametrize("name", ["gpt", "llama"])
@pytest.mark.parametrize("prompt", ["Is it raining?", "Is it raining? ", "Is it raining?\n", ""])
def test_the_row_is_the_whole_text_and_the_labels_its_target(name, prompt, request):
    tokenizer = request.getfixturevalue(name)
    encoder = CausalEncoder(tokenizer, "text-generation", 64)
    (row,) = encoder.encode([Example((prompt,), "yes it is")])
    space = "" if not prompt or prompt[-1].isspace() else " "
    whole = tokenizer(prompt + space + "yes it is")["input_ids"] + [tokenizer.eos_token_id]
    if not prompt and name == "gpt":  # the first token is predicted too
        whole = [tokenizer.bos_token_id, *whole]
    assert row["input_ids"] == whole
    assert row["attention_mask"] == [1] * len(whole)
    count = len(targets(row))
    assert row["labels"] == [IGNORED] * (len(whole) - count) + whole[-count:]
    assert tokenizer.decode(targets(row)[:-1]).replace("▁", " ").split() == ["yes", "it", "is"]


def test_the_loss_is_that_of_the_target_alone(gpt):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(gpt), n_positions=64, n_embd=16, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    encoder = CausalEncoder(gpt, "multiple-choice", 64)
    example = Example(("Is it raining?", ("yes it is", "no rain at all")), 1)
    batch = encoder.collate(encoder.encode_choices([example])[0])
    assert batch["input_ids"].shape[0] == 2
    with torch.inference_mode():
        logits = model(**batch).logits.log_softmax(-1)
        for row, choice in enumerate(example.inputs[1]):
            prompt, whole = gpt("Is it raining?")["input_ids"], gpt(f"Is it raining? {choice}")
            ids = whole["input_ids"]  # by hand: each token after the prompt, given all before it
            alone = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(alone[p - 1, ids[p]] for p in range(len(prompt), len(ids)))
            seen = batch["labels"][row, 1:] != IGNORED
            picked = logits[row, :-1].gather(1, batch["labels"][row, 1:, None].clamp(min=0))
            torch.testing.assert_close(picked[:, 0][seen].sum(), expected)
            loss = model(**{name: values[row : row + 1] for name, values in batch.items()}).loss
            torch.testing.assert_close(loss, -expected / (len(ids) - len(prompt)))


def test_training_takes_the_right_choice(gpt):
    encoder = CausalEncoder(gpt, "multiple-choice", 64)
    example = Example(("Is it raining?", ("yes it is", "no rain")), 1)
    assert encoder.encode([example])[0] == encoder.encode_choices([example])[0][1]


def test_long_prompts_lose_their_start_and_long_targets_their_end(llama):
    prompt, target = "the film was not good at all", "no rain"
    whole = llama(f"{prompt} {target}")["input_ids"]
    encoder = CausalEncoder(llama, "multiple-choice", len(whole) - 3)
    (row,) = encoder.encode([Example((prompt, (target,)), 0)])
    assert row["input_ids"] == whole[:1] + whole[4:]
    pieces = whole[len(llama(prompt)["input_ids"]) :]
    assert targets(row) == pieces
    short = CausalEncoder(llama, "text-generation", 3)
    (row,) = short.encode([Example((prompt,), target)])
    assert len(pieces) >= 2
    assert row["input_ids"] == [llama.bos_token_id, *pieces[:2]]
    assert (encoder.truncated, short.truncated) == (1, 1)


def test_prompts_alone_are_padded_at_the_left_and_leave_room(gpt):
    encoder = CausalEncoder(gpt, "text-generation", 64)
    rows = encoder.encode_prompts([Example(("no rain",), None), Example(("the film was",), None)])
    batch = encoder.collate(rows, left=True)
    for row, text in enumerate(("no rain", "the film was")):
        ids = gpt(text)["input_ids"]
        assert batch["input_ids"][row, -len(ids) :].tolist() == ids
        assert batch["attention_mask"][row].sum() == len(ids)
    assert encoder.truncated == 0
    (row,) = encoder.encode_prompts([Example(("the film was not good",), None)], room=62)
    assert row["input_ids"] == gpt("the film was not good")["input_ids"][-2:]
    assert encoder.truncated == 1


def test_an_encoder_decoder_reads_the_prompt_and_writes_the_target(t5):
    encoder = Seq2SeqEncoder(t5, "text-generation", 64)
    examples = [Example(("Is it raining?",), "yes it is"), Example(("the film",), "no")]
    batch = encoder.collate(encoder.encode(examples))
    config = T5Config(
        vocab_size=len(t5), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        decoder_start_token_id=0, dropout_rate=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config).eval()
    with torch.inference_mode():
        losses, counts = [], []
        for example in examples:
            labels = t5(example.label, return_tensors="pt")["input_ids"]
            assert labels[0, -1] == t5.eos_token_id
            given = t5(example.inputs[0], return_tensors="pt")["input_ids"]
            losses.append(model(input_ids=given, labels=labels).loss)
            counts.append(labels.shape[1])
        expected = sum(a * n for a, n in zip(losses, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(model(**batch).loss, expected)


def test_an_encoder_decoder_ranks_choices_after_one_prompt(t5):
    encoder = Seq2SeqEncoder(t5, "multiple-choice", 64)
    (rows,) = encoder.encode_choices([Example(("Is it raining?", ("yes", "no rain")), 0)])
    assert [row["input_ids"] for row in rows] == [t5("Is it raining?")["input_ids"]] * 2
    assert [row["labels"] for row in rows] == [t5("yes")["input_ids"], t5("no rain")["input_ids"]]


def test_rows_cut_at_either_end_are_counted_once(t5):
    encoder = Seq2SeqEncoder(t5, "text-generation", 3)
    long = "the film was not good at all"
    (row,) = encoder.encode([Example((long,), long)])
    assert (len(row["input_ids"]), len(row["labels"]), encoder.truncated) == (3, 3, 1)
