"""MagMax by hand, against numpy's argmax, and streamed."""

import numpy as np
import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import parse_recipe
from alliage.merging.methods.magmax import magmax
from tests.merging.methods.through_engine import assert_streamed_is_whole


def test_the_largest_change_of_each_parameter_by_hand():
    deltas = torch.tensor([[4.0, -2.0, 0.0, 1.0], [-1.0, -6.0, 0.0, -3.0], [2.0, 5.0, 0.0, 2.0]])
    assert magmax(deltas, scale=1.0).tolist() == [4.0, -6.0, 0.0, -3.0]
    assert magmax(deltas).tolist() == [2.0, -3.0, 0.0, -1.5]


def test_of_equal_magnitudes_the_last_is_taken():
    assert magmax(torch.tensor([[2.0], [-2.0], [1.0]]), scale=1.0).tolist() == [-2.0]


def test_it_is_numpys_argmax():
    deltas = np.random.default_rng(0).standard_normal((5, 40, 25)).astype(np.float32)
    largest = np.abs(deltas).argmax(axis=0)
    expected = np.take_along_axis(deltas, largest[None], axis=0)[0] * np.float32(0.3)
    found = magmax(torch.from_numpy(deltas), scale=0.3)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("coarse", [False, True])
def test_streamed_it_is_the_whole(tmp_path, coarse):
    assert_streamed_is_whole(tmp_path, "magmax", {"scale": 0.7}, coarse=coarse)


def test_weights_are_none_of_its_parameters():
    content = {"method": "magmax", "base": "b", "models": ["a"], "parameters": {"weight": 1}}
    with pytest.raises(UsageError, match="no parameter 'weight'"):
        parse_recipe(content).settings()
