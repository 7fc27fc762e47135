from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from alliage.data import digits, load_task
from alliage.errors import UsageError


def pictures(task):
    return {e.inputs.tobytes() for examples in task.splits.values() for e in examples}


def test_no_task_shows_an_image_of_the_pretraining_half():
    seen = pictures(load_task("digits:pretrain"))
    for name in ("digits:digit", "digits:prime"):
        assert not seen & pictures(load_task(name))
    every = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    assert seen | pictures(load_task("digits:digit")) == {image.tobytes() for image in every}


def test_the_splits_share_no_image_and_are_the_same_each_time():
    one, two = load_task("digits:parity"), load_task("digits:parity")
    train, validation = one.splits["train"], one.splits["validation"]
    assert (len(train), len(validation)) == (599, 300)
    assert not {e.inputs.tobytes() for e in train} & {e.inputs.tobytes() for e in validation}
    assert [e.label for e in train] == [e.label for e in two.splits["train"]]


# Answers by digit, written down by hand.
@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("parity", "0101010101"),
        ("at-least-five", "0000011111"),
        ("prime", "0011010100"),
        ("multiple-of-three", "1001001001"),
        ("loop", "1000001011"),
        ("straight", "0100100100"),
    ],
)
def test_each_question_has_the_right_answers(name, answers):
    digit, asked = load_task("digits:digit"), load_task(f"digits:{name}")
    for split in ("train", "validation"):
        for one, other in zip(digit.splits[split], asked.splits[split], strict=True):
            np.testing.assert_array_equal(one.inputs, other.inputs)
            assert other.label == int(answers[one.label])


def test_rotation_and_mirror_turn_the_images():
    digit = load_task("digits:digit").splits["train"]
    turned = load_task("digits:rotation").splits["train"]
    flipped = load_task("digits:mirror").splits["train"]
    for plain, one, other in zip(digit, turned, flipped, strict=True):
        np.testing.assert_array_equal(np.rot90(one.inputs, -one.label), plain.inputs)
        np.testing.assert_array_equal(
            other.inputs[:, ::-1] if other.label else other.inputs, plain.inputs
        )
    assert min(Counter(e.label for e in turned).values()) > 120


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'digits:parity'"):
        load_task("digits:party")
    assert len(digits.names()) == 10
