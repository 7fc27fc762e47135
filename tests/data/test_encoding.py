from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast, ViTConfig

from alliage.data import Example
from alliage.data.encoding import IGNORED, ImageEncoder, TextEncoder, encoder_for
from alliage.errors import AlliageError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##s", "rain", "the"]


@pytest.fixture(scope="module")
def tokenizer():
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip


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


def test_grey_becomes_minus_one_to_one_on_every_channel():
    image = np.uint8([[0, 255], [51, 102]])
    encoder = ImageEncoder(ViTConfig(image_size=2, num_channels=3), {})
    (features,) = encoder.encode([Example(image, 4)])
    expected = torch.tensor([[-1.0, 1.0], [-0.6, -0.2]]).expand(3, 2, 2)
    torch.testing.assert_close(features["pixel_values"], expected)
    assert encoder.collate([features])["labels"].tolist() == [4]


def test_the_processors_numbers_are_used_for_each_channel():
    processor = {"image_mean": [0.5, 0.25, 0.0], "image_std": [0.5, 0.25, 2.0]}
    encoder = ImageEncoder(ViTConfig(image_size=1), processor)
    (features,) = encoder.encode([Example(np.uint8([[[255, 0, 255]]]), 0)])
    torch.testing.assert_close(features["pixel_values"].flatten(), torch.tensor([1.0, -1.0, 0.5]))


def test_colour_becomes_grey_for_a_model_of_one_channel():
    encoder = ImageEncoder(ViTConfig(image_size=1, num_channels=1), {"do_normalize": False})
    (features,) = encoder.encode([Example(np.uint8([[[0, 51, 102]]]), 0)])
    torch.testing.assert_close(features["pixel_values"], torch.full((1, 1, 1), 0.2))


def test_only_images_of_another_size_are_resized():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    processor = {"do_normalize": False, "do_rescale": False, "resample": 3}
    same = ImageEncoder(ViTConfig(image_size=8), processor).encode([Example(image, 0)])
    np.testing.assert_array_equal(same[0]["pixel_values"].permute(1, 2, 0).numpy(), image)
    larger = ImageEncoder(ViTConfig(image_size=16), processor).encode([Example(image, 0)])
    expected = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(larger[0]["pixel_values"].permute(1, 2, 0).numpy(), expected)


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
