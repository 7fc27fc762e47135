from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig

from alliage.data import Example
from alliage.data.encoding import ImageEncoder


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


def test_hidden_labels_are_left_out():
    encoder = ImageEncoder(ViTConfig(image_size=2), {})
    (features,) = encoder.encode([Example(np.zeros((2, 2), np.uint8), None)])
    assert set(encoder.collate([features])) == {"pixel_values"}
