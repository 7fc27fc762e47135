"""Plans: what they say before anything is read, what they refuse, and whose models they mean."""

import json
import math
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage.errors import AlliageError, UsageError
from alliage.merging import list_methods, parse_recipe, plan, run
from alliage.merging.registry import describe
from tests.conftest import save_tokenizer
from tests.merging.planning.test_stacking import lora
from tests.merging.statistics import store_statistics
from tests.merging.test_odd_inputs import recipe, store, three


@pytest.fixture
def home(tmp_path):
    """base, a and b: two layers with weight and bias."""
    for name, tensor in zip(("base", "a", "b"), three((6, 6)), strict=True):
        content = {
            f"layers.{k}.query.{part}": (tensor if part == "weight" else tensor[0]) + k
            for k in range(2)
            for part in ("weight", "bias")
        }
        store(tmp_path / name, content, config={"num_hidden_layers": 2})
    return tmp_path


def said(made):
    return [str(problem) for problem in made.problems]


def test_a_plan_is_plain_values(home):
    for method in list_methods():
        if describe(method).unit == "factors":
            continue
        models = ["a", "b"][: describe(method).models or 2]
        for name in models:
            store_statistics(home / name, describe(method).statistics)
        for threads in (1, 3):
            made = plan(recipe(home, method, models), threads=threads, out=home / "out")
            content = made.to_dict()
            assert json.loads(json.dumps(content)) == content
            assert content["problems"] == []
            assert content["threads"] == threads
            assert content["elements_merged"] == 2 * (36 + 6)
            assert content["tensors_merged"] == 4
            assert content["output_files"] == ["model.safetensors"]
            assert [each["becomes"] for each in content["tensors"]] == ["merged"] * 4
            assert all(each["models"] == models for each in content["tensors"])
            assert sum(math.prod(each["shape"]) for each in content["tensors"]) == 2 * (36 + 6)
            assert content["estimated_seconds"] > 0
            assert content["memory"] == 2**30
            # There are no heads; a mask has a bit for each element, in whole bytes of each tensor.
            masks = len(models) * 2 * (5 + 1) if describe(method).masks is not None else 0
            assert content["disk"] == content["bytes_to_write"] + masks
            run(made, home / f"{method}-{threads}")
            written = (home / f"{method}-{threads}" / "model.safetensors").stat().st_size
            assert content["bytes_to_write"] == written


def test_the_bytes_that_a_plan_reads(home):
    each = 4 * 2 * (36 + 6)
    assert plan(recipe(home, "task_arithmetic")).bytes_to_read == 3 * each
    assert plan(recipe(home, "ties")).bytes_to_read == 2 * 3 * each
    assert plan(recipe(home, "average", base=None)).bytes_to_read == 2 * each


@pytest.mark.parametrize(
    ("method", "parameters", "readings"),
    [
        ("ties", {"density": 1.0}, 1),
        ("breadcrumbs", {}, 2),
        ("breadcrumbs", {"density": 1.0}, 1),
        ("dare_linear", {}, 1),
        ("dare_ties", {}, 1),
        ("dare_ties", {"rescale": "l1"}, 2),
        ("pcb", {}, 3),  # where magnitudes end, then scores
        ("sce", {}, 3),  # where models differ, then by how much there
        ("sce", {"density": 1.0}, 2),
        ("tall_masks", {}, 2),  # and once more for masks
        ("emr", {}, 2),
    ],
)
def test_readings_are_those_that_parameters_ask_for(home, method, parameters, readings):
    made = plan(recipe(home, method, parameters=parameters), out=home / "out")
    assert made.bytes_to_read == readings * 3 * 4 * 2 * (36 + 6)
    if describe(method).masks is None:  # whose reading is counted apart
        assert run(made, home / "out").passes >= readings


def test_shards_are_as_large_as_asked_for(home):
    made = plan(recipe(home), shard_bytes=200)
    # 24 bytes a bias, 144 a matrix, in order of the names
    found = [[spec.nbytes for spec in specs] for specs in made.layout.shards.values()]
    assert found == [[24, 144, 24], [144]]


@pytest.mark.parametrize("trim", ["model", "module", "tensor"])
def test_one_threshold_has_one_density(home, trim):
    rules = [{"filter": "bias", "value": 0.5}, {"value": 0.2}]
    made = plan(recipe(home, "ties", parameters={"density": rules, "trim": trim}))
    if trim == "tensor":
        assert said(made) == []
        return
    (problem,) = said(made)
    assert problem.startswith("density: is [0.")
    assert "layers.0.query.bias" in problem
    assert "layers.0.query.weight" in problem
    assert "or trim: tensor." in problem
    with pytest.raises(UsageError, match="density"):
        run(made, home / "out")


@pytest.mark.parametrize("trim", ["model", "tensor"])
def test_one_threshold_is_that_of_the_same_models(home, trim):
    slices = [
        {"models": [{"model": str(home / name), "layers": [k, k + 1]}]}
        for k, name in enumerate("ab")
    ]
    content = {"method": "ties", "base": str(home / "base"), "slices": slices}
    found = said(plan(parse_recipe({**content, "parameters": {"trim": trim}})))
    expected = "layers.1.query.bias: is made of other models than layers.0.query.bias."
    assert found == ([] if trim == "tensor" else [f"{expected} Set trim: tensor."])


def test_a_gradient_of_density_suits_modules(home):
    made = plan(recipe(home, "ties", parameters={"density": [0.2, 0.8], "trim": "module"}))
    assert said(made) == []
    found = {tensor.name: tensor.arguments["density"] for tensor in made.merged}
    assert found["layers.0.query.weight"] == found["layers.0.query.bias"] == [0.2, 0.2]
    assert found["layers.1.query.weight"] == [0.8, 0.8]


def test_weights_that_sum_to_zero_cannot_be_shares(home):
    models = [
        {"model": str(home / name), "parameters": {"weight": weight}}
        for name, weight in (("a", 0.1 + 0.2), ("b", -0.3))
    ]
    content = {"method": "average", "models": models}
    (problem,) = said(plan(parse_recipe(content)))
    assert "sum to zero" in problem
    assert "Set normalize: false" in problem
    free = parse_recipe(content | {"parameters": {"normalize": False}})
    assert said(plan(free)) == []
    # in one tensor alone
    models[0]["parameters"] = {"weight": [{"filter": "1.query.bias", "value": 0.3}, {"value": 1}]}
    (problem,) = said(plan(parse_recipe(content)))
    assert problem.startswith("weight of layers.1.query.bias")


@pytest.mark.parametrize(
    "method", ["geometric_median", "karcher", "multislerp", "multislerp_delta", "fisher", "regmean"]
)
def test_weights_that_are_all_zero_for_one_tensor_are_known_beforehand(home, method):
    for name in ("a", "b"):
        store_statistics(home / name, describe(method).statistics)
    base = "base" if describe(method).space == "delta" else None
    rules = [{"filter": "1.query", "value": 0}, {"value": 1}]
    (problem,) = said(plan(recipe(home, method, base=base, parameters={"weight": rules})))
    assert problem.startswith("weight of layers.1.query")
    assert "the weights [0, 0] sum to zero. Set " in problem
    assert problem.endswith("other weights.")
    rules[0]["value"] = 0.5
    assert said(plan(recipe(home, method, base=base, parameters={"weight": rules}))) == []


def test_too_little_disk_is_known_beforehand(home, monkeypatch):
    usage = namedtuple("usage", "total used free")
    asked = []

    def disk_usage(folder):
        asked.append(folder)
        return usage(10**9, 0, 300)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    made = plan(recipe(home), out=home / "new" / "out")
    (problem,) = said(made)
    assert problem.startswith(str(home / "new" / "out"))
    assert "GB are free" in problem
    assert asked == [home]  # the folder that is there
    with pytest.raises(AlliageError, match="are free"):
        run(made, home / "new" / "out")
    assert not (home / "new").exists()
    # an interrupted run has its room already
    assert said(plan(recipe(home), out=home / "new" / "out", resume=True)) == []


def test_too_little_memory_names_what_is_enough(home):
    least = plan(recipe(home, "ties"), threads=2).least_memory
    assert said(plan(recipe(home, "ties"), threads=2, memory=least)) == []
    (problem,) = said(plan(recipe(home, "ties"), threads=2, memory=least - 1))
    assert f"Give at least {least / 2**20:.1f} MiB" in problem


def test_where_memory_is_short_fewer_threads_work(home):
    """Each measures a tensor of its own; one alone would do."""
    chosen = recipe(home, "ties", parameters={"trim": "tensor"})
    run(plan(chosen), home / "whole")
    most = plan(chosen, threads=32)
    assert (most.workers, most.notes) == (32, plan(chosen).notes)
    for workers in (3, 1):
        made = plan(chosen, threads=32, memory=most.memory_for(workers + 1) - 1)
        assert said(made) == []
        assert made.to_dict()["threads"] == workers
        assert f"enough for {workers} of 32 threads" in made.notes[-1]
        assert made.working_memory <= made.memory
        run(made, home / str(workers))
        files = [home / name / "model.safetensors" for name in (str(workers), "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()
    (problem,) = said(plan(chosen, threads=32, memory=most.least_memory - 1))
    assert f"Give at least {most.memory_for(1) / 2**20:.1f} MiB" in problem


def test_the_tokenizer_of_the_model_that_is_named(home):
    for name in ("base", "b"):
        save_tokenizer(home / name)
    extra = json.loads((home / "b" / "tokenizer_config.json").read_text())
    extra["model_max_length"] = 77
    (home / "b" / "tokenizer_config.json").write_text(json.dumps(extra))
    for number, chosen in enumerate(("base", str(home / "b"), str(home / "base"))):
        run(plan(recipe(home, tokenizer=chosen)), home / str(number))
    first, second, third = (
        (home / str(number) / "tokenizer_config.json").read_text() for number in range(3)
    )
    assert first == third == (home / "base" / "tokenizer_config.json").read_text()
    assert second == (home / "b" / "tokenizer_config.json").read_text() != first
    with pytest.raises(UsageError, match="tokenizer"):
        plan(recipe(home, tokenizer="nobody"))


def test_models_of_one_name_are_numbered(home):
    (home / "more").mkdir()
    shutil.copytree(home / "a", home / "more" / "a")
    made = plan(recipe(home, models=["a", "more/a", "b"]))
    assert [vector.name for vector in made.vectors] == ["a", "a-2", "b"]


# -- model+adapter


@pytest.fixture
def adapted(tmp_path):
    """A base, a tuned model of the same names and one with a prefix."""
    draw = torch.Generator().manual_seed(0)
    names = [f"encoder.layer.{i}.query.{part}" for i in range(2) for part in ("weight", "bias")]
    base = {k: torch.randn((4, 4) if "weight" in k else 4, generator=draw) for k in names}
    tuned = {
        key: tensor + torch.randn(tensor.shape, generator=draw) for key, tensor in base.items()
    }
    store(tmp_path / "base", base)
    store(tmp_path / "tuned", tuned)
    store(tmp_path / "prefixed", {"bert." + key: tensor for key, tensor in tuned.items()})
    return tmp_path, base, tuned


def ia3(folder, base, prefix=""):
    """A scale for the outputs of layer 1."""
    scale = torch.tensor([0.5, 2.0, -1.0, 1.0])
    module = f"base_model.model.{prefix}encoder.layer.1.query"
    folder.mkdir()
    save_file({f"{module}.ia3_l": scale[:, None].clone()}, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "IA3", "target_modules": ["query"], "feedforward_modules": [],
        "base_model_name_or_path": str(base),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return scale


def merged(home, method, ref, **more):
    content = {"method": method, "base": str(home / "base"), "models": [ref]}
    run(plan(parse_recipe(content | more)), home / "out")
    return load_file(home / "out" / "model.safetensors")


METHODS = [("average", {}), ("task_arithmetic", {"parameters": {"scale": 1.0}})]


@pytest.mark.parametrize(("method", "more"), METHODS)
def test_low_rank_updates_are_added_to_the_tuned_model(adapted, method, more):
    home, _, tuned = adapted
    update = lora(home / "lora", home / "tuned")
    out = merged(home, method, f"{home / 'tuned'}+{home / 'lora'}", **more)
    for name, tensor in tuned.items():
        wanted = tensor + (update if name == "encoder.layer.1.query.weight" else 0)
        torch.testing.assert_close(out[name], wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("method", "more"), METHODS)
def test_scales_multiply_the_tuned_models_weights_not_the_bases(adapted, method, more):
    home, _, tuned = adapted
    scale = ia3(home / "ia3", home / "tuned")
    out = merged(home, method, f"{home / 'tuned'}+{home / 'ia3'}", **more)
    for name, tensor in tuned.items():
        factor = 1 if ".0." in name else scale if "bias" in name else scale[:, None]
        torch.testing.assert_close(out[name], tensor * factor, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("method", "more"), METHODS)
def test_an_adapter_of_the_base_itself(adapted, method, more):
    home, base, _ = adapted
    scale = ia3(home / "ia3", home / "base")
    out = merged(home, method, f"{home / 'base'}+{home / 'ia3'}", **more)
    name = "encoder.layer.1.query.weight"
    torch.testing.assert_close(out[name], base[name] * scale[:, None], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        out["encoder.layer.0.query.bias"], base["encoder.layer.0.query.bias"]
    )


def test_an_adapter_that_would_be_lost_is_refused(adapted):
    """Its names are the tuned model's, which the base does not know."""
    home, _, _ = adapted
    ia3(home / "ia3", home / "prefixed", "bert.")
    ref = f"{home / 'prefixed'}+{home / 'ia3'}"
    made = plan(recipe(home, models=[ref]))
    (problem,) = said(made)
    assert problem.startswith(f"{home / 'ia3'}: changes bert.encoder.layer.1.query.weight")
    assert "Apply the adapter first" in problem


def test_the_name_of_a_model_with_its_adapter(adapted):
    home, _, _ = adapted
    lora(home / "lora", home / "tuned")
    ref = f"{home / 'tuned'}+{home / 'lora'}"
    assert [v.name for v in plan(recipe(home, models=[ref])).vectors] == ["tuned+lora"]
    content = {"method": "average", "base": str(home / "base")}
    content["models"] = [{"model": ref, "name": "mine"}]
    assert [v.name for v in plan(parse_recipe(content)).vectors] == ["mine"]


def test_without_a_base_the_first_adapters_own_is_it(adapted):
    home, _, _ = adapted
    lora(home / "lora", home / "tuned")
    made = plan(recipe(home, "average", ["lora"], base=None))
    assert made.base.path == home / "tuned"
    with alliage.open(home / "lora") as adapter:
        assert adapter.base.path == home / "tuned"
    (problem,) = said(plan(recipe(home, base="lora", models=["tuned"])))
    assert "a base must be a full model" in problem
