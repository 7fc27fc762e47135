"""Deficits on single examples, and when they begin and end."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from alliage.data import Task
from alliage.errors import UsageError
from alliage.tuning.science import deficits
from alliage.tuning.science.deficits import (
    DeficitSettings,
    blur,
    build,
    derangement,
    merged_vocabulary,
)

IMAGES = Task("images", "image-classification", ("a", "b", "c"), {})
TEXTS = Task("texts", "sequence-classification", ("a", "b", "c"), {})
TAGS = Task("tags", "token-classification", ("O", "B-X"), {})


def images():
    drawn = torch.Generator().manual_seed(0)
    return [
        {"pixel_values": torch.rand(1, 8, 8, generator=drawn), "labels": index % 3}
        for index in range(6)
    ]


def made(kind, examples=None, task=IMAGES, tokenizer=None, **settings):
    chosen = DeficitSettings(kind=kind, end=2, **settings)
    return build(chosen, images() if examples is None else examples, task, tokenizer, seed=0)


def test_blur_equals_pillows_bilinear_resampling_and_keeps_even_images():
    from PIL import Image

    image = images()[0]["pixel_values"]
    small = Image.fromarray(image[0].numpy()).resize((2, 2), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(blur(image, 4)[0].numpy(), expected, atol=1e-6)
    even = torch.full((3, 7, 9), 0.25)
    torch.testing.assert_close(blur(even, 4), even)
    assert blur(image, 4).std() < image.std() / 2


def test_a_deficit_lasts_from_its_first_epoch_to_its_last():
    examples = images()
    deficient = build(
        DeficitSettings(kind="flip", start=1, end=3), examples, IMAGES, None, seed=0
    )  # fmt: skip
    callback = deficits.callback(deficient)
    flipped = []
    for epoch in (0.0, 1.0, 1.9999999, 2.0, 3.0):
        callback.on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
        shown = deficient[2]["pixel_values"]
        original = examples[2]["pixel_values"]
        flipped.append(torch.equal(shown, original.flip(1)) and not torch.equal(shown, original))
        assert deficient[2]["labels"] == 2
    assert flipped == [False, True, True, True, False]
    assert len(deficient) == 6


def test_noise_is_normal_new_in_each_epoch_and_the_same_in_each_run():
    deficient, again = made("noise"), made("noise")
    first = torch.stack([deficient[index]["pixel_values"] for index in range(6)])
    assert torch.equal(first, torch.stack([again[i]["pixel_values"] for i in range(6)]))
    deficient.epoch = 1
    assert not torch.allclose(first[0], deficient[0]["pixel_values"])
    assert abs(first.mean()) < 0.2
    assert first.std().item() == pytest.approx(1, abs=0.1)


def test_labels_are_renamed_consistently_and_none_keeps_its_name():
    deficient = made("labels")
    names = [deficient[index]["labels"] for index in range(6)]
    assert names[:3] == names[3:]
    assert sorted(names[:3]) == [0, 1, 2]
    assert all(name != index for index, name in enumerate(names[:3]))
    assert torch.equal(deficient[0]["pixel_values"], images()[0]["pixel_values"])
    for size in range(2, 9):
        moved = derangement(size, np.random.default_rng(size))
        assert sorted(moved) == list(range(size))
        assert (moved != np.arange(size)).all()


def test_tokens_of_a_group_become_one_and_special_ones_stay():
    tokenizer = SimpleNamespace(all_special_ids=[0, 2], __len__=lambda: 11)
    known = merged_vocabulary(11, [0, 2], 3, np.random.default_rng(0))
    assert known[0] == 0
    assert known[2] == 2
    sizes = np.unique(np.delete(known, [0, 2]), return_counts=True)[1]
    assert sorted(sizes) == [3, 3, 3]
    assert (known[known] == known).all()

    class Tokenizer:
        all_special_ids = tokenizer.all_special_ids

        def __len__(self):
            return 11

    examples = [{"input_ids": [0, 5, 6, 2], "attention_mask": [1] * 4, "labels": 1}]
    deficient = made("vocabulary", examples, TEXTS, Tokenizer(), strength=3)
    assert deficient[0] == {
        "input_ids": known[[0, 5, 6, 2]].tolist(), "attention_mask": [1] * 4, "labels": 1,
    }  # fmt: skip
    assert examples[0]["input_ids"] == [0, 5, 6, 2]


@pytest.mark.parametrize(
    ("kind", "task", "message"),
    [
        ("blur", TEXTS, "deficit: blur: needs images, not sequence-classification"),
        ("labels", TAGS, "deficit: labels: needs one label out of several"),
        ("vocabulary", IMAGES, "deficit: vocabulary: needs text, not image-classification"),
    ],
)
def test_a_deficit_that_the_task_cannot_have_is_refused(kind, task, message):
    with pytest.raises(UsageError, match=message):
        made(kind, task=task)


def test_wrong_settings_are_refused():
    with pytest.raises(ValidationError, match="start must be below end, got 2 and 2"):
        DeficitSettings(kind="flip", start=2, end=2)
    with pytest.raises(ValidationError, match="flip knows no strength"):
        DeficitSettings(kind="flip", end=2, strength=3)
