"""Merges in memory have the values of the merges that are written."""

from __future__ import annotations

import pytest
import torch

import alliage
from alliage.errors import AlliageError
from alliage.merging import describe, list_methods, plan, run
from alliage.search.held import Held


def written(recipe, out):
    """What the engine writes."""
    run(plan(recipe), out)
    with alliage.open(out) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.specs()}


def in_memory(held, recipe, like, **settings):
    made = plan(recipe, **settings)
    targets = {name: torch.full_like(tensor, 7.0) for name, tensor in like.items()}
    held.merge_into(targets, made)
    return targets


CASES = [
    ("ties", {"parameters": {"density": 0.3, "scale": 1.7}}),
    ("ties", {"parameters": {"trim": "tensor", "kept": "count", "scale": -0.3}}),
    ("ties", {"dtype": "bfloat16", "parameters": {"scale": 0.9}}),
    ("task_arithmetic", {"parameters": {"scale": 0.3}}),
    ("task_arithmetic", {"parameters": {"scale": [{"filter": "layer.1", "value": 0.1},
                                                  {"value": 0.7}]}}),
    ("dare_ties", {"parameters": {"density": 0.4, "seed": 3, "scale": 1.1}}),
    ("dare_linear", {"parameters": {"density": 0.4, "rescale": "l1", "scale": 0.2}}),
    ("average", {}),
    ("slerp", {"parameters": {"t": 0.3}}),
]  # fmt: skip


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(("method", "content"), CASES, ids=lambda case: str(case))
def test_the_values_are_those_that_the_engine_writes(recipe, tmp_path, method, content, adapters):
    models = ("sentiment-lora", "topics-lora") if adapters else ("sentiment", "topics")
    asked = recipe(method, models, **content)
    expected = written(asked, tmp_path / "out")
    held = Held(2**30)
    # Threads and blocks are of no account; a second merge comes from what is kept.
    for settings in ({}, {"threads": 2, "memory": 2**20}, {}):
        found = in_memory(held, asked, expected, **settings)
        changed = {tensor.name for tensor in plan(asked).merged}
        assert changed
        for name in changed:
            assert torch.equal(found[name], expected[name]), name
        assert all((found[name] == 7).all() for name in expected.keys() - changed)


def test_points_after_each_other_do_not_disturb_each_other(recipe, tmp_path):
    held = Held(0)  # nothing but the latest is kept
    points = [
        recipe(parameters={"density": density, "scale": scale})
        for density in (0.1, 0.3)
        for scale in (0.8, 2.1)
    ]
    points += [recipe("task_arithmetic"), recipe("average"), points[0]]
    for number, point in enumerate(points):
        expected = written(point, tmp_path / str(number))
        found = in_memory(held, point, expected)
        for tensor in plan(point).merged:
            assert torch.equal(found[tensor.name], expected[tensor.name])


def test_what_differs_in_the_last_factor_alone_is_merged_once(recipe, monkeypatch):
    computed = []
    compute = Held._compute
    monkeypatch.setattr(
        Held, "_compute", lambda self, made: computed.append(made) or compute(self, made)
    )
    held = Held(2**30)
    for density in (0.1, 0.2):
        for scale in (0.8, 0.9, 1.0):
            held.merge_into({}, plan(recipe(parameters={"density": density, "scale": scale})))
    assert len(computed) == 2
    held.merge_into({}, plan(recipe(parameters={"density": 0.2, "vote": "count"})))
    assert len(computed) == 3
    assert len(held._statistics) == 2  # thresholds depend on the density alone


def test_signs_that_a_guess_got_wrong_are_merged_again(family, tmp_path):
    # τ₁ = (−1, −1, 3) and τ₂ = (1, −1, −2) on a tensor of three: votes 0, −, +; with four more
    # entries of −1 in both the majority is negative, against the guess.
    from safetensors.torch import save_file

    for name, values in {
        "base": [0.0] * 7,
        "one": [-1.0, -1, 3, -1, -1, -1, -1],
        "two": [1.0, -1, -2, -1, -1, -1, -1],
    }.items():
        save_file({"weight": torch.tensor(values)}, tmp_path / f"{name}.safetensors")
    from alliage.merging import parse_recipe

    asked = parse_recipe(
        {
            "method": "ties",
            "base": str(tmp_path / "base.safetensors"),
            "models": [str(tmp_path / f"{name}.safetensors") for name in ("one", "two")],
            "parameters": {"density": 1.0},
        }
    )
    target = {"weight": torch.zeros(7)}
    Held(2**20).merge_into(target, plan(asked))
    assert target["weight"].tolist() == [-1, -1, 3, -1, -1, -1, -1]


def test_given_signs_count_here_too(recipe, family, tmp_path):
    signs = tmp_path / "signs.safetensors"
    alliage.signs(family / "topics", base=family / "base", out=signs)
    asked = recipe(signs=str(signs))
    expected, elected = written(asked, tmp_path / "given"), written(recipe(), tmp_path / "elected")
    found = in_memory(Held(2**30), asked, expected)
    names = [tensor.name for tensor in plan(asked).merged]
    assert all(torch.equal(found[name], expected[name]) for name in names)
    assert not all(torch.equal(elected[name], expected[name]) for name in names)


def test_methods_that_make_a_model_for_each_task_are_refused(recipe):
    with pytest.raises(AlliageError, match="emr makes a model for each task"):
        Held(2**20).merge_into({}, plan(recipe("emr")))


def test_results_that_the_type_cannot_hold_are_refused(recipe):
    asked = recipe("task_arithmetic", dtype="float16", parameters={"scale": 1e9})
    with pytest.raises(AlliageError, match="no finite F16"):
        Held(2**20).merge_into({}, plan(asked))


def test_methods_that_make_adapters_are_refused(recipe):
    asked = recipe("factor_average", ("sentiment-lora", "topics-lora"))
    with pytest.raises(AlliageError, match="factor_average makes an adapter"):
        Held(2**20).merge_into({}, plan(asked))


FACTORS = [
    (name, key)
    for name in list_methods()
    for key, parameter in describe(name).parameters.items()
    if parameter.factor
]


@pytest.mark.parametrize(("name", "key"), FACTORS)
def test_what_is_declared_a_last_factor_is_one(name, key):
    method = describe(name)
    deltas = torch.randn(method.models or 3, 6, 5, generator=torch.Generator().manual_seed(0))
    one = method.function(deltas.clone(), **{key: 1.0})
    for factor in (0.1, -2.3, 1e-3):
        assert torch.equal(method.function(deltas.clone(), **{key: factor}), one * factor)


def test_some_methods_declare_a_last_factor():
    assert {name for name, _ in FACTORS} >= {"ties", "task_arithmetic", "dare_linear", "dare_ties"}
