"""Methods that return what nobody asked for: nothing is written of it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from alliage.errors import AlliageError
from alliage.merging import plan, run
from tests.merging.test_odd_inputs import recipe, store


@pytest.fixture
def home(tmp_path):
    for seed, name in enumerate(("base", "a", "b")):
        draw = torch.Generator().manual_seed(seed)
        store(tmp_path / name, {"layers.0.weight": torch.randn(32, 24, generator=draw)})
    return tmp_path


WRONG = {
    "one number for all": (lambda deltas: deltas.mean().reshape(1), r"\[1\]"),
    "a number": (lambda deltas: deltas.mean(), r"\[\]"),
    "all models": (lambda deltas: deltas, r"\[2, .*\]"),
    "float64": (lambda deltas: deltas.double().mean(0), "float64"),
    "bool": (lambda deltas: deltas[0] > 0, "bool"),
    "nothing": (lambda deltas: None, "NoneType"),
    "an array": (lambda deltas: deltas[0].numpy(), "ndarray"),
}


@pytest.mark.parametrize("unit", ["block", "tensor"])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_method_returns_is_held_against_what_it_was_asked(home, plug_in, unit, wrong):
    function, found = WRONG[wrong]
    plug_in("wrong", unit=unit, space="delta", paper="none")(function)
    shape = r"\[768\]" if unit == "block" else r"\[32, 24\]"
    said = rf"^method wrong: returned {found} for layers\.0\.weight, expected {shape}, float32\. "
    with pytest.raises(AlliageError, match=said):
        run(plan(recipe(home, "wrong")), home / "out")
    assert not (home / "out").exists()


def test_a_matrix_that_is_turned_is_refused(home, plug_in):
    plug_in("turned", unit="tensor", space="weight", paper="none")(lambda weights: weights[0].mT)
    with pytest.raises(AlliageError, match=r"returned \[24, 32\] .* expected \[32, 24\]"):
        run(plan(recipe(home, "turned")), home / "out")


def adapters(home, kind, shapes, names=("x", "y")):
    for seed, name in enumerate(names):
        draw = torch.Generator().manual_seed(10 + seed)
        (home / name).mkdir()
        settings = {
            "peft_type": kind, "r": 2, "lora_alpha": 2, "target_modules": ["0"],
            "feedforward_modules": [], "base_model_name_or_path": str(home / "base"),
        }  # fmt: skip
        (home / name / "adapter_config.json").write_text(json.dumps(settings))
        save_file(
            {
                f"base_model.model.layers.0.{key}": torch.randn(shape, generator=draw)
                for key, shape in shapes.items()
            },
            home / name / "adapter_model.safetensors",
        )


FACTORS = {"lora_A.weight": (2, 24), "lora_B.weight": (32, 2)}


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda B, A: B[0] @ A[0], "Tensor"),
        (lambda B, A: (A[0], B[0]), r"\[2, 24\] and \[32, 2\]"),
        (lambda B, A: (torch.cat(B, 1), torch.cat(A)), r"\[32, 4\] and \[4, 24\]"),
        (lambda B, A: (B[0].double(), A[0]), "float64 and float32"),
    ],
)
def test_factors_are_held_against_the_module_and_the_rank(home, plug_in, function, found):
    adapters(home, "LORA", FACTORS)
    plug_in("wrong", unit="factors", space="delta", paper="none")(function)
    wanted = r"expected B \[32, r\] and A \[r, 24\], float32, r at most 2"
    with pytest.raises(AlliageError, match=rf"returned {found} for layers\.0, {wanted}\."):
        run(plan(recipe(home, "wrong", ["x", "y"])), home / "out")


def test_a_rule_is_held_against_the_tensors_that_it_was_given(home, plug_in):
    adapters(home, "LORA", FACTORS)
    plug_in("wrong", unit="block", space="delta", paper="none")(lambda deltas: deltas.mean(0)[:1])
    chosen = recipe(home, "core_space", ["x", "y"], parameters={"rule": "wrong"})
    with pytest.raises(AlliageError, match=r"method wrong: returned \[1, 4\] for layers\.0, "):
        run(plan(chosen), home / "out")


def test_merged_scales_are_held_against_the_channels(home, plug_in):
    adapters(home, "IA3", {"ia3_l": (32, 1)})
    plug_in("wrong", unit="block", space="delta", paper="none")(lambda deltas: deltas.mean(0)[:1])
    with pytest.raises(AlliageError, match=r"returned \[1\] for layers\.0, expected \[32\]"):
        run(plan(recipe(home, "wrong", ["x", "y"], adapter=True)), home / "out")
