"""Methods that go by rows or inputs, on GPT-2's matrices, which are stored the other way round."""

import pytest
import torch
from safetensors.torch import load_file

from alliage.merging import describe, list_methods, plan, run
from alliage.merging.engine.values import draws
from tests.merging.methods.through_engine import deltas_of
from tests.merging.test_odd_inputs import recipe, store

SHAPES = {
    "transformer.h.0.mlp.c_fc.weight": (6, 24),  # stored as [inputs, outputs]
    "transformer.wte.weight": (50, 6),
    "transformer.h.0.mlp.c_fc.bias": (24,),
}
BY_ROWS = {
    "della": {},
    "della_linear": {},
    "iso_cts": {},
    "model_stock": {"filter_wise": True},
    "svc": {},
    "wudi": {"rate": 1e-3},
}


def test_these_are_the_methods_that_declare_it():
    assert {name for name in list_methods() if describe(name).oriented} == set(BY_ROWS)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", BY_ROWS)
def test_rows_are_outputs_however_they_are_stored(tmp_path, method, threads):
    draw, models = torch.Generator().manual_seed(0), []
    for name in ("base", "a", "b"):
        models.append({key: torch.randn(shape, generator=draw) for key, shape in SHAPES.items()})
        store(tmp_path / name, models[-1], config={"model_type": "gpt2"})
    parameters = BY_ROWS[method]
    chosen = recipe(tmp_path, method, parameters=parameters)
    run(plan(chosen, threads=threads), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    merge = describe(method).function
    for name in SHAPES:
        deltas = deltas_of(models, name)
        given = {"uniform": draws(0, name, 2, 0, deltas[0].numel()).reshape(deltas.shape)}
        given = given if describe(method).random else {}
        as_stored = merge(deltas, **given, **parameters)
        if "c_fc.weight" in name:
            given = {key: values.mT for key, values in given.items()}
            turned = merge(deltas.mT.contiguous(), **given, **parameters).mT
            assert not torch.allclose(turned, as_stored, rtol=1e-3)
            as_stored = turned
        torch.testing.assert_close(found[name] - models[0][name], as_stored, rtol=1e-4, atol=1e-5)
