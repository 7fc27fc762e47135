from __future__ import annotations

import time

import pytest
import torch

import alliage
from alliage.data import Example
from alliage.evaluation.models import Classifier
from alliage.evaluation.speed import measure_speed
from tests.evaluation.test_scoring import MOOD


class Slow(torch.nn.Module):
    """Takes 2 ms and 1 ms for each example; its first calls take 50 ms more."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, numbers):
        self.sizes.append(len(numbers))
        time.sleep(0.002 + 0.001 * len(numbers) + 0.05 * (self.sizes.count(len(numbers)) <= 3))


class Numbers:
    def encode(self, examples):
        return [{"numbers": example.inputs[0]} for example in examples]

    def collate(self, encoded):
        numbers = torch.tensor([one["numbers"] for one in encoded])
        return {"numbers": numbers, "labels": numbers}


def test_medians_are_of_passes_after_the_warm_up():
    model = Slow()
    examples = [Example((number,), 0) for number in range(20)]
    one, many = measure_speed(Classifier(model, Numbers(), (0, 1)), examples, 8)
    assert model.sizes == [1] * 33 + [8] * 33  # three passes of each are not counted
    assert (one.batch, one.passes, many.batch, many.passes) == (1, 30, 8, 30)
    assert 0.003 <= one.low <= one.median <= one.high < 0.05
    assert 0.010 <= many.low <= many.median <= many.high < 0.05
    assert many.throughput == pytest.approx(8 / many.median)
    assert (one.device, one.threads) == ("cpu", torch.get_num_threads())


def test_a_batch_is_no_larger_than_the_data():
    model = Slow()
    examples = [Example((number,), 0) for number in range(3)]
    _, many = measure_speed(Classifier(model, Numbers(), (0, 1)), examples, 64)
    assert many.batch == 3


def test_a_model_is_timed_on_its_task(family):
    scores = alliage.evaluate(family / "sentiment", MOOD, batch_size=4, speed=True)["mood"]
    assert [speed.batch for speed in scores.speed] == [1, 4]
    assert alliage.evaluate(family / "sentiment", MOOD)["mood"].speed == ()
