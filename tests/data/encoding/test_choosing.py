from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, PreTrainedTokenizerFast, T5Config

import alliage
from alliage.data import Example
from alliage.data.encoding import CausalEncoder, Seq2SeqEncoder, TextEncoder, encoder_for
from alliage.errors import AlliageError


def encoder(folder, kind, config, max_length=None, **special):
    made = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "rain": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    with alliage.open(folder) as checkpoint:
        return encoder_for(kind, checkpoint, config, max_length=max_length)


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("text-generation", GPT2Config(), CausalEncoder),
        ("multiple-choice", GPT2Config(), CausalEncoder),
        ("text-generation", T5Config(), Seq2SeqEncoder),
        ("multiple-choice", T5Config(), Seq2SeqEncoder),
        ("regression", GPT2Config(), TextEncoder),
    ],
)
def test_the_model_and_the_kind_choose(tmp_path, kind, config, expected):
    assert type(encoder(tmp_path, kind, config, eos_token="</s>")) is expected


def test_a_decoder_without_a_padding_token_is_padded_with_its_end_token(tmp_path):
    made = encoder(tmp_path, "regression", GPT2Config(), eos_token="</s>")
    batch = made.collate(made.encode([Example(("rain rain",), 0.0), Example(("rain",), 1.0)]))
    assert batch["input_ids"].tolist() == [[2, 2], [2, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_a_tokenizer_with_neither_is_refused(tmp_path):
    with pytest.raises(AlliageError, match="neither a padding token nor an end token"):
        encoder(tmp_path, "text-generation", GPT2Config())


def test_the_shorter_of_two_limits_holds(tmp_path):
    text = Example(("rain " * 9,), 0.0)
    config = GPT2Config(n_positions=6)
    (own,) = encoder(tmp_path, "regression", config, eos_token="</s>").encode([text])
    (cut,) = encoder(tmp_path, "regression", config, 4, eos_token="</s>").encode([text])
    assert (len(own["input_ids"]), len(cut["input_ids"])) == (6, 4)
