from __future__ import annotations

import pytest
import torch
from transformers import BertConfig

from alliage.data import Example
from alliage.data.encoding import IGNORED, TextEncoder, encoder_for
from alliage.errors import AlliageError
from tests.data.encoding.conftest import VOCABULARY


def ids(*tokens):
    return [VOCABULARY.index(token) for token in tokens]


def test_tags_stand_at_first_subwords(tokenizer):
    encoder = TextEncoder(tokenizer, "token-classification", 512)
    (features,) = encoder.encode([Example(("the", "playings", "rain"), (5, 7, 9))])
    assert features["input_ids"] == ids("[CLS]", "the", "play", "##ing", "##s", "rain", "[SEP]")
    assert features["labels"] == [IGNORED, 5, 7, IGNORED, IGNORED, 9, IGNORED]


def test_batches_are_padded_to_their_longest(tokenizer):
    encoder = TextEncoder(tokenizer, "token-classification", 512)
    batch = encoder.collate(
        encoder.encode([Example(("rain",), (1,)), Example(("playing", "rain"), (2, 3))])
    )
    assert batch["input_ids"].tolist() == [
        ids("[CLS]", "rain", "[SEP]", "[PAD]", "[PAD]"),
        ids("[CLS]", "play", "##ing", "rain", "[SEP]"),
    ]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [
        [IGNORED, 1, IGNORED, IGNORED, IGNORED],
        [IGNORED, 2, IGNORED, 3, IGNORED],
    ]


def test_pairs_are_joined_and_long_ones_cut(tokenizer):
    encoder = TextEncoder(tokenizer, "sequence-classification", 6)
    (features,) = encoder.encode([Example(("the rain", "the playing rain"), 1)])
    assert len(features["input_ids"]) == 6
    assert features["input_ids"].count(3) == 2
    assert features["labels"] == 1
    assert encoder.collate([features])["labels"].tolist() == [1]


def test_cut_texts_are_counted_once_each(tokenizer):
    encoder = TextEncoder(tokenizer, "sequence-classification", 4)
    texts = ["rain", "the rain", "the rain the", "playing rain", "playings"]  # 1 to 3 sub-words
    rows = encoder.encode([Example((text,), 0) for text in texts])
    whole = tokenizer(texts)["input_ids"]
    assert encoder.truncated == sum(len(ids) > 4 for ids in whole) == 3
    assert all(len(row["input_ids"]) <= 4 for row in rows)
    tagger = TextEncoder(tokenizer, "token-classification", 4)
    tagger.encode([Example(("rain", "the", "rain"), (0, 0, 0)), Example(("rain",), (0,))])
    assert tagger.truncated == 1


def test_numbers_stay_numbers(tokenizer):
    encoder = TextEncoder(tokenizer, "regression", 8)
    rows = encoder.encode([Example(("rain", "the"), 3.8), Example(("rain", "rain"), 1.0)])
    batch = encoder.collate(rows)
    torch.testing.assert_close(batch["labels"], torch.tensor([3.8, 1.0]))


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification"])
def test_hidden_labels_are_left_out(tokenizer, kind):
    encoder = TextEncoder(tokenizer, kind, 8)
    rows = encoder.encode([Example(("rain",), None), Example(("the",), None)])
    assert set(encoder.collate(rows)) == {"input_ids", "attention_mask"}


def test_a_model_without_a_tokenizer_says_so(tmp_path):
    from safetensors.torch import save_file

    import alliage

    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    BertConfig().save_pretrained(tmp_path)
    with (
        alliage.open(tmp_path) as checkpoint,
        pytest.raises(AlliageError, match="no tokenizer in it"),
    ):
        encoder_for("sequence-classification", checkpoint, BertConfig())
