"""Merged (IA)3 adapters as PEFT loads them, against scales worked out by numpy."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage import vectors
from alliage.errors import AlliageError, UsageError
from alliage.merging import parse_recipe, plan, run, ties
from tests.vectors.test_low_rank import bert, gpt2

SETTINGS = [
    {
        "target_modules": ["key", "value", "intermediate.dense"],
        "feedforward_modules": ["intermediate.dense"],
    },
] * 3
OTHERS = [
    SETTINGS[0],
    {"target_modules": ["key"], "feedforward_modules": []},
    {"target_modules": ["output.dense"], "feedforward_modules": ["output.dense"]},
]


def tune(home, make, all_settings):
    """A base and random adapters of it under home/0, home/1, …; the scales by module."""
    from peft import IA3Config, get_peft_model

    torch.manual_seed(0)
    base = make()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases too
    base.save_pretrained(home / "base")
    found = []
    for number, settings in enumerate(all_settings):
        adapted = get_peft_model(type(base).from_pretrained(home / "base"), IA3Config(**settings))
        torch.manual_seed(number + 1)
        for key, parameter in adapted.named_parameters():
            if "ia3_l" in key:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
        adapted.peft_config["default"].base_model_name_or_path = str(home / "base")
        adapted.save_pretrained(home / str(number))
        found.append(load_file(home / str(number) / "adapter_model.safetensors"))
    return base, found


def merged_by(home, method, out="out", models=("0", "1", "2"), **changes):
    content = {
        "method": method, "base": str(home / "base"), "adapter": True,
        "models": [str(home / name) for name in models], **changes,
    }  # fmt: skip
    run(plan(parse_recipe(content)), home / out)
    return load_file(home / out / "adapter_model.safetensors")


def test_the_scales_move_by_the_sum_of_their_differences_from_one(tmp_path):
    _, scales = tune(tmp_path, bert, SETTINGS)
    weights = [0.5, 1.0, -0.3]
    found = merged_by(
        tmp_path, "task_arithmetic",
        parameters={"scale": 1.0}, models=("0", "1", "2"),
    )  # fmt: skip
    weighted = alliage.merge(
        "task_arithmetic", base=tmp_path / "base", out=tmp_path / "weighted", adapter=True,
        models={tmp_path / str(k): weight for k, weight in enumerate(weights)}, scale=1.0,
    )  # fmt: skip
    unequal = load_file(weighted.out / "adapter_model.safetensors")
    assert found.keys() == scales[0].keys()
    for name, tensor in found.items():
        each = np.stack([some[name].double().numpy() for some in scales])
        assert tensor.shape == scales[0][name].shape
        np.testing.assert_allclose(tensor.numpy(), 1 + (each - 1).sum(axis=0), rtol=1e-5)
        expected = 1 + np.tensordot(weights, each - 1, axes=1)
        np.testing.assert_allclose(unequal[name].numpy(), expected, rtol=1e-5)
    mean = merged_by(tmp_path, "average", out="mean")
    for name, tensor in mean.items():
        each = np.stack([some[name].double().numpy() for some in scales])
        np.testing.assert_allclose(tensor.numpy(), each.mean(axis=0), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("case", ["bert", "gpt2"])
def test_peft_loads_what_is_made(tmp_path, case):
    from peft import PeftModel

    if case == "bert":
        base, _ = tune(tmp_path, bert, SETTINGS)
    else:
        settings = {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True}
        base, _ = tune(tmp_path, gpt2, [settings | {"feedforward_modules": ["mlp.c_proj"]}] * 3)
    merged = merged_by(tmp_path, "average")
    model = type(base).from_pretrained(tmp_path / "base")
    adapted = PeftModel.from_pretrained(model, tmp_path / "out")
    loaded = {name: p for name, p in adapted.named_parameters() if "ia3_l" in name}
    assert len(loaded) == len(merged)
    for name, parameter in loaded.items():
        assert torch.equal(parameter, merged[name.replace(".default", "")])
    after = adapted.merge_and_unload().state_dict()
    vector = vectors.open(tmp_path / "out", tmp_path / "base")
    for name, before in base.state_dict().items():
        moved = vector.delta(name) if name in vector.shapes else 0
        torch.testing.assert_close(after[name], before + moved, rtol=1e-5, atol=1e-6)


def test_modules_that_an_adapter_leaves_alone_are_scaled_by_one(tmp_path):
    from peft import PeftModel

    base, scales = tune(tmp_path, bert, OTHERS)
    merged = merged_by(tmp_path, "average")
    assert merged.keys() == set().union(*scales)
    for name, tensor in merged.items():
        each = [some.get(name, torch.ones_like(tensor)) for some in scales]
        torch.testing.assert_close(tensor, torch.stack(each).mean(dim=0), rtol=1e-6, atol=0)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert len(settings["target_modules"]) == len(merged)
    scaled_inputs = [module for module in settings["target_modules"] if "dense" in module]
    assert settings["feedforward_modules"] == scaled_inputs
    model = type(base).from_pretrained(tmp_path / "base")
    adapted = PeftModel.from_pretrained(model, tmp_path / "out")
    for name, parameter in adapted.named_parameters():
        if "ia3_l" in name:
            assert torch.equal(parameter, merged[name.replace(".default", "")])


def test_ties_trims_all_scales_as_one_vector(tmp_path):
    _, scales = tune(tmp_path, bert, SETTINGS)
    for trim in ("model", "tensor"):
        found = merged_by(tmp_path, "ties", out=trim, parameters={"trim": trim, "density": 0.3})
        order = list(plan(parse_recipe({
            "method": "ties", "base": str(tmp_path / "base"), "adapter": True,
            "models": [str(tmp_path / "0")],
        })).scales)  # fmt: skip
        names = [each.stored for each in order]
        rows = [[some[name].flatten() - 1 for name in names] for some in scales]
        if trim == "model":
            whole = 1 + ties(torch.stack([torch.cat(row) for row in rows]), density=0.3)
        else:
            columns = zip(*rows, strict=True)
            whole = 1 + torch.cat([ties(torch.stack(c), density=0.3) for c in columns])
        ours = torch.cat([found[name].flatten() for name in names])
        assert torch.equal(ours, whole)


def test_draws_are_the_same_each_time_and_differ_by_seed(tmp_path):
    tune(tmp_path, bert, SETTINGS)
    one, again, other = (
        merged_by(tmp_path, "dare_ties", out=f"out-{k}", parameters={"seed": seed, "density": 0.5})
        for k, seed in enumerate((1, 1, 2))
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_types_and_values_that_are_not_finite(tmp_path):
    _, scales = tune(tmp_path, bert, SETTINGS)
    halves = merged_by(tmp_path, "average", out="halves", dtype="bfloat16")
    assert {tensor.dtype for tensor in halves.values()} == {torch.bfloat16}
    large = {"dtype": "float16", "parameters": {"scale": 1e30}}
    with pytest.raises(AlliageError, match="no finite F16"):
        merged_by(tmp_path, "task_arithmetic", out="large", **large)
    name = next(iter(scales[1]))
    scales[1][name][0] = float("inf")
    save_file(scales[1], tmp_path / "1" / "adapter_model.safetensors")
    with pytest.raises(AlliageError, match="holds NaN or infinity") as caught:
        merged_by(tmp_path, "average", out="flawed")
    assert name in str(caught.value)
    assert not (tmp_path / "flawed").exists()


def test_what_makes_no_adapter_of_scales(tmp_path, family):
    tune(tmp_path, bert, SETTINGS[:1])

    def said(method="average", models=("0",), **changes):
        content = {
            "method": method, "base": str(tmp_path / "base"), "adapter": True,
            "models": [str(tmp_path / name) for name in models], **changes,
        }  # fmt: skip
        try:
            return "\n".join(map(str, plan(parse_recipe(content)).problems))
        except UsageError as error:
            return str(error)

    assert said() == ""
    assert "is no (IA)3 adapter" in said(
        models=[str(family / "sentiment-lora")], base=str(family / "base")
    )
    assert "needs statistics of full models" in said("fisher")
    varying = {"parameters": {"scale": [0, 1]}}
    assert "has other arguments than" in said("ties", **varying)
    assert said("ties", parameters={"scale": [0, 1], "trim": "tensor"}) == ""
    assert "adapter" in said(adapter=False)
