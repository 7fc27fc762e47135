"""The Fisher information against closed forms, against Jacobians, and what it is not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alliage.errors import AlliageError
from alliage.statistics.fisher import fisher_diagonal


class Linear(torch.nn.Module):
    """A linear classifier of vectors, or of each position of a sequence."""

    device = "cpu"

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(inputs, outputs)
        self.unused = torch.nn.Parameter(torch.ones(3))

    def forward(self, x, labels):
        return SimpleNamespace(logits=self.layer(x))


def examples(count, size=4, labels=0):
    x = torch.randn(count, size, generator=torch.Generator().manual_seed(count))
    return [{"x": row[None], "labels": torch.tensor([labels])} for row in x]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def softmax(model, x):
    with torch.no_grad():
        return model.layer(x).double().softmax(-1).numpy()


@pytest.mark.parametrize("classes", [2, 5])
def test_softmax_regression_in_closed_form(classes):
    """∂log p_c/∂w_k = (1[c = k] − p_k) x, so that the expectation is p_k (1 − p_k) x²."""
    torch.manual_seed(0)
    model, data = Linear(4, classes), examples(20)
    found = fisher_diagonal(model, data, generator(), expected=True)
    x = torch.cat([each["x"] for each in data])
    p = softmax(model, x)
    spread = p * (1 - p)
    expected = np.einsum("nk,nd->kd", spread, x.double().numpy() ** 2) / 20
    np.testing.assert_allclose(found["layer.weight"].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(found["layer.bias"].numpy(), spread.mean(0), rtol=1e-5)
    assert found["unused"].tolist() == [0, 0, 0]
    if classes == 2:  # logistic regression: both rows are Σ p(1 − p)x²
        np.testing.assert_allclose(found["layer.weight"][0], found["layer.weight"][1], rtol=1e-5)


def test_a_sentence_is_one_example_and_sums_over_its_tokens():
    torch.manual_seed(0)
    model = Linear(4, 3)
    x = torch.randn(1, 5, 4, generator=generator())
    labels = torch.tensor([[-100, 2, 0, -100, 1]])
    found = fisher_diagonal(model, [{"x": x, "labels": labels}], generator(), expected=True)
    seen = x[0, [1, 2, 4]]
    p = softmax(model, seen)
    expected = np.einsum("nk,nd->kd", p * (1 - p), seen.double().numpy() ** 2)
    np.testing.assert_allclose(found["layer.weight"].numpy(), expected, rtol=1e-5)


def test_a_regression_predicts_a_normal_of_variance_one():
    model, data = Linear(4, 1), examples(6, labels=2.5)
    found = fisher_diagonal(model, data, generator(), expected=True)
    x = torch.cat([each["x"] for each in data])
    torch.testing.assert_close(found["layer.weight"], x.square().mean(0, keepdim=True))
    assert found["layer.bias"].item() == 1


def test_sampled_labels_have_the_expectation_as_their_mean():
    torch.manual_seed(0)
    model, data = Linear(3, 4), examples(1, size=3)
    exact = fisher_diagonal(model, data, generator(), expected=True)["layer.weight"].double()
    draws = torch.stack(
        [
            fisher_diagonal(model, data, generator(seed), expected=False)["layer.weight"].double()
            for seed in range(2000)
        ]
    )
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() < 4 * error).all()
    assert error.max() < 0.1 * exact.max()


def test_it_is_no_square_of_a_batchs_mean():
    """Scores have mean zero, so the square of a mean of 16 is 16 times smaller on average."""
    torch.manual_seed(0)
    model, data = Linear(4, 3), examples(16)
    x = torch.cat([each["x"] for each in data])
    log_p = model(x, None).logits.log_softmax(-1)
    parameters = list(model.layer.parameters())
    naive, draw = 0.0, generator(1)
    for _ in range(600):
        labels = torch.multinomial(log_p.detach().exp(), 1, generator=draw)
        mean = log_p.gather(1, labels).mean()
        gradients = torch.autograd.grad(mean, parameters, retain_graph=True)
        naive += sum(float(each.square().sum()) for each in gradients) / 600
    found = fisher_diagonal(model, data, generator(), expected=True)
    ours = float(found["layer.weight"].sum() + found["layer.bias"].sum())
    assert ours / naive == pytest.approx(16, rel=0.1)


def test_gradients_that_are_nan_are_named():
    model = Linear(2, 2)
    data = [{"x": torch.tensor([[float("inf"), 1.0]]), "labels": torch.tensor([0])}]
    with pytest.raises(AlliageError, match=r"layer\.weight: its gradient is NaN or infinite"):
        fisher_diagonal(model, data, generator(), expected=True)
