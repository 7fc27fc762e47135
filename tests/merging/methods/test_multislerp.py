"""Multi-SLERP on angles worked out by hand, in the steps of its source, and streamed."""

import math

import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.methods.through_engine import SHAPES, checkpoints, deltas_of, merged_everyhow
from tests.merging.tensors import close, draw

multislerp, multislerp_delta = get_method("multislerp"), get_method("multislerp_delta")


def test_worked_out_by_hand():
    axes = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    # halfway between the axes, of length (2 + 4)/2
    close(multislerp(axes), [3 * math.sqrt(0.5), 3 * math.sqrt(0.5)])
    # shares ¾ and ¼: along (3, 1), of length (3·2 + 4)/4
    close(multislerp(axes, weight=[3.0, 1.0]), [2.5 * 3 / math.sqrt(10), 2.5 / math.sqrt(10)])
    close(multislerp(axes, weight=[3.0, 1.0], normalize=False), [30 / 10**0.5, 10 / 10**0.5])
    close(multislerp_delta(axes), multislerp(axes))


@pytest.mark.parametrize("models", [2, 3, 5])
def test_it_is_its_sources_steps(models):
    weights, shares = draw(models, 40), torch.arange(1.0, models + 1)
    tasks, shares64 = weights.double(), shares.double() / shares.sum()
    norms = tasks.norm(dim=1)
    units = tasks / norms[:, None]
    mean = (shares64[:, None] * units).sum(dim=0)
    mean /= mean.norm()
    tangents = units - (units @ mean)[:, None] * mean
    step = (shares64[:, None] * tangents).sum(dim=0)
    assert step.norm() < 1e-12  # zero by construction: the mean is where it ends
    expected = (mean * math.cos(step.norm()) + step) * (shares64 @ norms)
    close(multislerp(weights, weight=shares), expected)


def test_what_has_no_direction():
    axes = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    close(multislerp(axes), [2 * math.sqrt(0.5), 2 * math.sqrt(0.5)])  # length (2 + 0 + 4)/3
    opposite = torch.tensor([[1.0, 2.0], [-3.0, -6.0]])
    close(multislerp(opposite), [-1.0, -2.0])  # the line between them
    assert not multislerp(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("method", ["multislerp", "multislerp_delta"])
def test_streamed_it_is_the_whole(tmp_path, method):
    models = checkpoints(tmp_path)
    delta = method.endswith("delta")
    found = merged_everyhow(tmp_path, method, base="base" if delta else None)
    for name in SHAPES:
        if delta:
            expected = models[0][name] + multislerp_delta(deltas_of(models, name))
        else:
            expected = multislerp(torch.stack([model[name] for model in models[1:]]))
        close(found[name], expected)


def test_bad_input():
    with pytest.raises(UsageError, match=r"weight: must be in \[0, inf\)"):
        parse_recipe(
            {"method": "multislerp", "models": [{"model": "a", "parameters": {"weight": -1}}]}
        ).settings()
