from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    CamembertConfig,
    Data2VecTextConfig,
    GPT2Config,
    GPT2Tokenizer,
    IBertConfig,
    LongformerConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaPreLayerNormConfig,
    RobertaTokenizer,
    T5Config,
    XLMRobertaXLConfig,
)

import alliage
from alliage.data import Example
from alliage.data.encoding import IGNORED, CausalEncoder, Seq2SeqEncoder, TextEncoder, encoder_for
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


SIZES = {
    "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8, "max_position_embeddings": 12, "pad_token_id": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "shift"),
    [
        (BertConfig, 0), (CamembertConfig, 2), (Data2VecTextConfig, 2), (IBertConfig, 2),
        (LongformerConfig, 2), (MPNetConfig, 2), (RobertaConfig, 2),
        (RobertaPreLayerNormConfig, 2), (XLMRobertaXLConfig, 2),
    ],
)  # fmt: skip
def test_the_longest_text_is_the_longest_that_the_model_itself_takes(tmp_path, form, shift):
    config = form(**SIZES, **({"attention_window": 4} if form is LongformerConfig else {}))
    text = Example(("rain " * 20,), 0.0)
    (row,) = encoder(tmp_path, "regression", config, pad_token="</s>").encode([text])
    length = len(row["input_ids"])
    assert length == 12 - shift
    model = AutoModel.from_config(config).eval()
    ids = torch.full((1, length), 2)
    assert model(input_ids=ids).last_hidden_state.shape == (1, length, 8)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 2))


WORDS = {token: number for number, token in enumerate(
    ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
)}  # fmt: skip
SENTENCE = ("It", "isn't", "rain")


def on_bytes(folder, form, config):
    folder.mkdir(exist_ok=True)
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    form(vocab=WORDS, merges=[], **special).save_pretrained(folder)
    config.save_pretrained(folder)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("form", "config"),
    [
        (RobertaTokenizer, RobertaConfig()),
        (RobertaTokenizer, BartConfig()),
        (RobertaTokenizer, LongformerConfig()),
        (GPT2Tokenizer, GPT2Config()),
    ],
)
def test_tokenizers_on_bytes_read_texts_as_they_are_and_split_words_apart(tmp_path, form, config):
    folder = on_bytes(tmp_path / "own", form, config)
    own = AutoTokenizer.from_pretrained(folder)
    apart = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    text = " ".join(SENTENCE)
    with alliage.open(folder) as checkpoint:
        texts = encoder_for("sequence-classification", checkpoint, config)
        words = encoder_for("token-classification", checkpoint, config)
    (read,) = texts.encode([Example((text,), 0)])
    assert read["input_ids"] == own(text)["input_ids"]
    (split,) = words.encode([Example(SENTENCE, (5, 6, 7))])
    assert split["input_ids"] == own(" " + text)["input_ids"] != read["input_ids"]
    assert split["input_ids"] == apart(list(SENTENCE), is_split_into_words=True)["input_ids"]
    assert [label for label in split["labels"] if label != IGNORED] == [5, 6, 7]


def test_words_of_a_tokenizer_that_splits_before_its_bytes_stand_apart(tmp_path):
    """As of Llama 3 and Qwen, whose pieces would each get a space by add_prefix_space."""
    made = Tokenizer(models.BPE(WORDS, [], unk_token="<unk>"))
    pieces = pre_tokenizers.Split(Regex(r"'t| ?[a-zA-Z]+"), "isolated")
    on_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([pieces, on_bytes])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>")
    (split,) = TextEncoder(tokenizer, "token-classification", 99).encode(
        [Example(SENTENCE, (5, 6, 7))]
    )
    assert split["input_ids"] == tokenizer(" " + " ".join(SENTENCE))["input_ids"]
