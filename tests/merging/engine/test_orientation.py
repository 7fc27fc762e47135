"""Methods that need rows to be outputs get GPT-2's matrices the other way round."""

import pytest
import torch
from safetensors.torch import load_file

from alliage.merging import describe, list_methods, plan, run
from alliage.merging.engine.values import draws
from tests.merging.methods.through_engine import deltas_of
from tests.merging.test_odd_inputs import recipe, store

CONV1D = {
    "transformer.h.0.attn.c_attn.weight": (6, 18),
    "transformer.h.0.attn.c_proj.weight": (6, 6),
    "transformer.h.0.mlp.c_fc.weight": (6, 24),
    "transformer.h.0.mlp.c_proj.weight": (24, 6),
}
SHAPES = CONV1D | {
    "transformer.wte.weight": (50, 6),
    "transformer.h.0.attn.c_attn.bias": (18,),
    "transformer.h.0.ln_1.weight": (6,),
    "lm_head.weight": (50, 6),
}


def models_of(home, model_type):
    """The base's tensors and those of a and b, all stored."""
    draw = torch.Generator().manual_seed(0)
    config = {"model_type": model_type, "tie_word_embeddings": False}
    made = []
    for name in ("base", "a", "b"):
        made.append({key: torch.randn(shape, generator=draw) for key, shape in SHAPES.items()})
        store(home / name, made[-1], config=config)
    return made


def register(plug_in, *, oriented):
    """The mean of the task vectors, each row divided by its largest entry; where drawn."""

    @plug_in("by_rows", unit="tensor", space="delta", paper="none", oriented=oriented, random=True)
    def by_rows(deltas, *, seed: int = 0, uniform: torch.Tensor | None = None):
        """Scale every row."""
        assert uniform.shape == deltas.shape
        mean = (deltas * (uniform < 0.5)).mean(0)
        return mean / mean.abs().amax(-1, keepdim=True).clamp_min(1e-6) if mean.ndim > 1 else mean

    return by_rows


def expected(function, models, name, turned):
    """base + what the function makes of the whole matrices, turned or as they are stored."""
    deltas = deltas_of(models, name)
    uniform = draws(0, name, 2, 0, deltas[0].numel()).reshape(deltas.shape)
    if not turned:
        return models[0][name] + function(deltas, uniform=uniform)
    whole = deltas.mT.contiguous(), uniform.mT.contiguous()
    return models[0][name] + function(whole[0], uniform=whole[1]).mT


@pytest.mark.parametrize(
    ("model_type", "oriented", "turned"),
    [("gpt2", True, set(CONV1D)), ("gpt2", False, set()), ("llama", True, set())],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_are_outputs_for_methods_that_say_so(
    tmp_path, plug_in, model_type, oriented, turned, threads
):
    models = models_of(tmp_path, model_type)
    function = register(plug_in, oriented=oriented)
    run(plan(recipe(tmp_path, "by_rows"), threads=threads), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name in SHAPES:
        assert torch.equal(found[name], expected(function, models, name, name in turned)), name


def test_without_a_config_matrices_stay_as_they_are_stored(tmp_path, plug_in):
    models = models_of(tmp_path, "gpt2")
    for name in ("base", "a", "b"):
        (tmp_path / name / "config.json").unlink()
    function = register(plug_in, oriented=True)
    run(plan(recipe(tmp_path, "by_rows")), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name in SHAPES:
        assert torch.equal(found[name], expected(function, models, name, turned=False)), name


MARKED = {
    "della": {}, "della_linear": {}, "iso_cts": {}, "model_stock": {"filter_wise": True},
    "svc": {}, "wudi": {},
}  # fmt: skip


def test_all_that_say_so_are_known_here():
    assert sorted(MARKED) == [name for name in list_methods() if describe(name).oriented]


@pytest.mark.parametrize("method", MARKED)
def test_methods_by_rows_or_inputs_work_on_outputs_and_inputs_of_gpt2(tmp_path, method):
    models, declared = models_of(tmp_path, "gpt2"), describe(method)
    made = plan(recipe(tmp_path, method, parameters=MARKED[method]))
    run(made, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    differ = 0
    for name in CONV1D:
        deltas, arguments = deltas_of(models, name), dict(made.arguments)
        stored, turned = {}, {}
        if declared.random:
            uniform = draws(arguments["seed"], name, 2, 0, deltas[0].numel()).reshape(deltas.shape)
            stored, turned = {"uniform": uniform}, {"uniform": uniform.mT}
        expected = models[0][name] + declared.function(deltas.mT, **arguments, **turned).mT
        assert torch.equal(found[name], expected), name
        as_stored = models[0][name] + declared.function(deltas, **arguments, **stored)
        differ += not torch.allclose(found[name], as_stored, atol=1e-4)
    assert differ, "which way round they are counts"
