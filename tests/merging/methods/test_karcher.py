"""The Karcher mean on angles worked out by hand, against a search, and streamed."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.spatial import geometric_slerp

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.methods.through_engine import SHAPES, checkpoints, merged_everyhow
from tests.merging.tensors import close

karcher = get_method("karcher")


def on_circle(*degrees):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1).float()


def test_worked_out_by_hand():
    # on a circle the mean of angles: (0 + 30 + 90)/3 = 40
    close(karcher(on_circle(0, 30, 90), iterations=50, tolerance=1e-9), on_circle(40)[0])
    # and of lengths: 2
    lengths = torch.tensor([[1.0], [2.0], [3.0]])
    close(karcher(on_circle(0, 30, 90) * lengths, iterations=50), 2 * on_circle(40)[0], atol=1e-5)
    # with shares, (1·0 + 3·80)/4 = 60
    close(karcher(on_circle(0, 80), weight=[1.0, 3.0], tolerance=1e-9), on_circle(60)[0])


def test_two_models_with_shares_are_on_their_arc():
    pair = np.random.default_rng(0).standard_normal((2, 30))
    pair /= np.linalg.norm(pair, axis=1, keepdims=True)
    expected = geometric_slerp(pair[0], pair[1], 0.7)
    found = karcher(torch.from_numpy(pair).float(), weight=[0.3, 0.7], iterations=50)
    close(found, expected, atol=2e-5)


def test_no_direction_has_smaller_squared_angles():
    models = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).abs()
    units = (models / models.norm(dim=1, keepdim=True)).double().numpy()

    def cost(place):
        return np.sum(np.arccos(np.clip(units @ (place / np.linalg.norm(place)), -1, 1)) ** 2)

    best = minimize(cost, units.mean(axis=0), tol=1e-12).x
    found = karcher(models, iterations=100, tolerance=1e-9).double().numpy()
    np.testing.assert_allclose(
        found / np.linalg.norm(found), best / np.linalg.norm(best), rtol=0, atol=1e-5
    )
    assert np.linalg.norm(found) == pytest.approx(models.norm(dim=1).mean().item(), rel=1e-6)


def test_near_models_do_not_lose_their_differences():
    base = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    models = base + 1e-3 * torch.randn(3, 1000, generator=torch.Generator().manual_seed(3))
    close(karcher(models), models.mean(dim=0), atol=2e-6)  # where the sphere is flat


def test_what_has_no_direction():
    axes = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    close(karcher(axes), [2 * math.sqrt(0.5), 2 * math.sqrt(0.5)])  # length (2 + 0 + 4)/3
    assert not karcher(torch.zeros(3, 4)).any()
    opposite = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    close(karcher(opposite), [2.0, 0.0])  # they cancel: it begins, and ends, at the first


def test_streamed_it_is_the_whole(tmp_path):
    models = checkpoints(tmp_path)
    found = merged_everyhow(tmp_path, "karcher", base=None)
    for name in SHAPES:
        close(found[name], karcher(torch.stack([model[name] for model in models[1:]])))


def test_bad_input():
    for key, wrong in (("iterations", -1), ("iterations", 1.5), ("tolerance", -1)):
        with pytest.raises(UsageError, match=rf"parameters\.{key}: must be"):
            parse_recipe(
                {"method": "karcher", "models": ["a"], "parameters": {key: wrong}}
            ).settings()
