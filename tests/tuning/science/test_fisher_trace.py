"""Traces against closed forms, and against the Hessian of the loss where that is the Fisher."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alliage.tuning.science import fisher_trace as module
from alliage.tuning.science.fisher_trace import FisherTraceSettings, fisher_trace, layer_name
from tests.conftest import bert_config


class Linear(torch.nn.Module):
    """A linear classifier of vectors, or of each position of a sequence."""

    device = "cpu"

    def __init__(self, inputs, outputs):
        super().__init__()
        self.classifier = torch.nn.Linear(inputs, outputs, dtype=torch.float64)

    def forward(self, x, labels):
        return SimpleNamespace(logits=self.classifier(x))


def generator():
    return torch.Generator().manual_seed(0)


def vectors(count, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=drawn, dtype=torch.float64)


def closed_form(model, x):
    """‖x‖² + 1 (for the bias) times E‖e_y − p‖² = 1 − Σp²: the Fisher trace of a softmax."""
    shares = model.classifier(x).softmax(-1)
    return ((x.square().sum(-1) + 1) * (1 - shares.square().sum(-1))).detach().numpy()


def test_exact_equals_the_closed_form_of_a_softmax():
    torch.manual_seed(0)
    model, x = Linear(3, 4), vectors(5)
    batches = [{"x": row[None], "labels": torch.tensor([0])} for row in x]
    found = fisher_trace(model, batches, generator(), labels="exact")
    assert list(found) == ["head"]
    np.testing.assert_allclose(found["head"], closed_form(model, x))


def test_exact_equals_the_trace_of_the_hessian_of_a_network_in_its_last_layer():
    """In the parameters of the last layer, the Fisher information is the loss's own Hessian."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config(num_labels=3)).double()
    ids = torch.tensor([[2, 6, 7, 3]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([1])}
    found = fisher_trace(model, [batch], generator(), labels="exact")
    pooled = model.eval().bert(ids).pooler_output.detach()

    def loss(weight, bias):
        return torch.nn.functional.cross_entropy(pooled @ weight.T + bias, torch.tensor([1]))

    parameters = (model.classifier.weight.detach(), model.classifier.bias.detach())
    blocks = torch.autograd.functional.hessian(loss, parameters)
    trace = blocks[0][0].reshape(48, 48).trace() + blocks[1][1].trace()
    model.bert.requires_grad_(False)
    alone = fisher_trace(model, [batch], generator(), labels="exact")
    assert list(alone) == ["head"]
    assert alone["head"][0] == pytest.approx(trace.item())
    assert set(found) == {"bert.encoder.layer.0", "bert.encoder.layer.1", "embeddings", "head"}
    assert found["embeddings"][0] > 0


def test_sampled_labels_have_the_same_mean():
    torch.manual_seed(0)
    model, x = Linear(3, 4), vectors(1)
    batches = [{"x": x, "labels": torch.tensor([0])}] * 3000
    found = fisher_trace(model, batches, torch.Generator().manual_seed(1))["head"]
    error = found.std(ddof=1) / len(found) ** 0.5
    assert abs(found.mean() - closed_form(model, x)[0]) < 3 * error
    assert error < 0.05 * found.mean()


def test_positions_without_a_label_do_not_count_and_shift_pairs_each_with_the_next():
    torch.manual_seed(0)
    model = Linear(3, 4)
    x = vectors(4)[None]
    each = closed_form(model, x[0])
    batch = {"x": x, "labels": torch.tensor([[-100, 2, -100, 1]])}
    plain = fisher_trace(model, [batch], generator(), labels="exact")["head"]
    assert plain[0] == pytest.approx(each[1] + each[3])
    shifted = fisher_trace(model, [batch], generator(), labels="exact", shift=True)["head"]
    assert shifted[0] == pytest.approx(each[0] + each[2])
    nothing = {"x": x, "labels": torch.full((1, 4), -100)}
    assert fisher_trace(model, [nothing], generator())["head"].tolist() == [0.0]


def test_regression_is_the_square_of_the_gradient():
    model, x = Linear(3, 1), vectors(2)
    batches = [{"x": row[None], "labels": torch.tensor([0.5])} for row in x]
    found = fisher_trace(model, batches, generator())["head"]
    np.testing.assert_allclose(found, (x.square().sum(1) + 1).numpy())


def test_mode_and_gradients_stay():
    model = Linear(3, 2).train()
    fisher_trace(model, [{"x": vectors(1), "labels": torch.tensor([0])}], generator())
    assert model.training
    assert model.classifier.weight.grad is None


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("vit.layers.11.attention.q_proj.weight", "vit.layers.11"),
        ("convnext.encoder.stages.1.layers.0.dwconv.bias", "convnext.encoder.stages.1.layers.0"),
        ("transformer.h.3.mlp.c_fc.weight", "transformer.h.3"),
        ("decoder.block.2.layer.1.EncDecAttention.q.weight", "decoder.block.2.layer.1"),
        ("vit.embeddings.cls_token", "embeddings"),
        ("vit.layernorm.weight", "vit.layernorm"),
        ("classifier.weight", "head"),
    ],
)
def test_layers_by_name(parameter, layer):
    assert layer_name(parameter) == layer


def test_the_callback_measures_at_its_steps_and_not_twice():
    model = Linear(3, 2)
    examples = [{"x": row, "labels": 0} for row in vectors(6)]

    def collate(rows):
        x = torch.stack([row["x"] for row in rows])
        return {"x": x, "labels": torch.tensor([row["labels"] for row in rows])}

    settings = FisherTraceSettings(every=2, examples=4, labels="exact")
    callback = module.callback(settings, examples, collate, shift=False, seed=0)
    state = SimpleNamespace(global_step=0, max_steps=5, epoch=0.0, log_history=[{"step": 0}])
    callback.on_train_begin(None, state, None, model=model)
    for step in range(1, 6):
        state.global_step, state.epoch = step, step / 5
        callback.on_step_end(None, state, None, model=model)
    callback.on_train_begin(None, state, None, model=model)  # a run that goes on
    found = module.rows(state.log_history)
    assert [row["step"] for row in found] == [0, 2, 4, 5]
    assert [row["epoch"] for row in found] == [0, 0.4, 0.8, 1.0]
    each = closed_form(model, vectors(6))
    assert found[0]["parameters"] == 8
    assert min(each) <= found[0]["trace"] <= max(each)
    traces = {round(row["trace"], 9) for row in found}
    assert len(traces) > 1  # other examples each time
