from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import ViTConfig

from alliage.data import Example
from alliage.data.encoding import ImageEncoder, TextEncoder, encoded, lengths
from alliage.data.encoding import lazy as module
from alliage.data.task import Selection

TEXTS = ["rain", "the rain", "playing", "the playing rain", "playings"]


@pytest.fixture
def encoder(tokenizer):
    return TextEncoder(tokenizer, "sequence-classification", 4)


@pytest.fixture
def examples():
    return tuple(Example((text,), index) for index, text in enumerate(TEXTS))


def test_what_is_in_memory_is_encoded_at_once(encoder, examples):
    features = encoded(encoder, examples)
    assert isinstance(features, list)
    assert lengths(features) == [3, 4, 4, 4, 4]


def test_what_is_read_from_disk_is_encoded_by_the_batch(encoder, examples):
    expected = encoder.encode(examples)
    cut = encoder.truncated
    encoder.truncated = 0
    features = encoded(encoder, Selection(examples, np.arange(len(examples))))
    assert not isinstance(features, list)
    order = [4, 0, 3, 1, 2]
    loader = DataLoader(features, batch_size=2, sampler=order, collate_fn=list)
    for _ in range(3):  # epochs
        assert [row for batch in loader for row in batch] == [expected[i] for i in order]
        assert encoder.truncated == cut == 2
    assert features[1:3] == expected[1:3]
    assert lengths(features) == [len(text) for text in TEXTS]


def test_more_pixels_than_fit_are_scaled_by_the_batch(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 4 * 3 * 2 * 2 * 2)
    encoder = ImageEncoder(ViTConfig(image_size=2), {})
    examples = tuple(Example(np.full((2, 2), value, np.uint8), 0) for value in range(3))
    assert isinstance(encoded(encoder, examples[:2]), list)
    features = encoded(encoder, examples)
    assert not isinstance(features, list)
    for row, expected in zip(features, encoder.encode(examples), strict=True):
        torch.testing.assert_close(row["pixel_values"], expected["pixel_values"])


def test_of_a_batch_seen_in_part_the_rest_is_counted(encoder, examples):
    expected = encoder.encode(examples)
    encoder.truncated = 0
    features = encoded(encoder, Selection(examples, np.arange(len(examples))))
    for batch, cut in (([3, 0], 1), ([0, 3, 4], 2), ([4, 4, 1], 2), ([2, 3], 2)):
        assert features.__getitems__(batch) == [expected[index] for index in batch]
        assert encoder.truncated == cut
