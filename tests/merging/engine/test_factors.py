"""Merged adapters as PEFT loads them, against dense sums that PEFT made; and how they are run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage import vectors
from alliage.errors import AlliageError, UsageError
from alliage.merging import parse_recipe, plan, run
from tests.vectors.test_low_rank import bert, gpt2, vit

WEIGHTS = (0.7, -0.4, 1.1)
EXACT = {
    "lora_concat": {},
    "lora_svd": {"rank": 1000},
    "knots": {"rule": "task_arithmetic", "scale": 1},
    "core_space": {"rule": "task_arithmetic", "scale": 1},
}

CASES = {
    "ranks and scales": (
        bert,
        [
            {"r": 2, "lora_alpha": 4, "target_modules": ["query", "value"]},
            {"r": 5, "lora_alpha": 3, "target_modules": ["query", "value"]},
            {"r": 4, "lora_alpha": 6, "target_modules": ["query", "value"], "use_rslora": True},
        ],
    ),
    "other modules": (
        bert,
        [
            {"r": 2, "lora_alpha": 4, "target_modules": ["query"]},
            {"r": 3, "lora_alpha": 4, "target_modules": ["value", "dense"]},
            {"r": 1, "lora_alpha": 4, "target_modules": ["query"], "layers_to_transform": [1]},
        ],
    ),
    "patterns": (
        bert,
        [
            {
                "r": 2, "lora_alpha": 6, "target_modules": ["query", "value", "dense"],
                "rank_pattern": {"query": 5}, "alpha_pattern": {"layer.1.attention.self.value": 9},
            },
            {"r": 3, "lora_alpha": 2, "target_modules": ["query", "value"]},
            {"r": 2, "lora_alpha": 2, "target_modules": r".*\.1\.attention\.self\.key"},
        ],
    ),
    "embedding": (
        bert,
        [
            {"r": 2, "target_modules": ["word_embeddings", "query"]},
            {"r": 3, "target_modules": ["word_embeddings"]},
            {"r": 1, "target_modules": ["query"]},
        ],
    ),
    "conv1d": (
        gpt2,
        [
            {"r": rank, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
            for rank in (2, 3, 1)
        ],
    ),
    "renamed in memory, and a convolution": (
        vit,
        [
            {"r": 2, "target_modules": ["q_proj", "projection"]},
            {"r": 3, "target_modules": ["q_proj", "v_proj", "fc1"]},
            {"r": 1, "target_modules": ["projection"]},
        ],
    ),
}  # fmt: skip


def tune(base, home, make, all_settings):
    """Random adapters of a base under home/0, home/1, …, and what PEFT makes of each."""
    from peft import LoraConfig, get_peft_model

    base.save_pretrained(home / "base")
    deltas = []
    for number, settings in enumerate(all_settings):
        torch.manual_seed(number + 1)
        adapted = get_peft_model(
            type(base).from_pretrained(home / "base"), LoraConfig(lora_dropout=0.0, **settings)
        )
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.peft_config["default"].base_model_name_or_path = str(home / "base")
        adapted.save_pretrained(home / str(number))
        before = base.state_dict()
        after = adapted.merge_and_unload().state_dict()
        deltas.append({name: after[name].double() - before[name].double() for name in before})
    return deltas


def merged_by(home, method, models=("0", "1", "2"), out="out", threads=1, **changes):
    content = {
        "method": method,
        "models": [
            {"model": str(home / name), "parameters": {"weight": weight}}
            for name, weight in zip(models, WEIGHTS, strict=False)
        ],
        **changes,
    }
    made = plan(parse_recipe(content), threads=threads)
    run(made, home / out)
    return home / out


def loaded(base, folder):
    """The base with an adapter, as PEFT merges it."""
    from peft import PeftModel

    model = type(base).from_pretrained(folder.parent / "base")
    with_adapter = PeftModel.from_pretrained(model, folder)
    expected = {name for name in load_file(folder / "adapter_model.safetensors") if "lora" in name}
    found = {name for name, _ in with_adapter.named_parameters() if "lora_" in name}
    assert len(found) == len(expected)  # none stayed at its initial value
    return with_adapter.merge_and_unload().state_dict()


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_exact_methods_add_what_peft_merges(tmp_path, case):
    make, settings = CASES[case]
    torch.manual_seed(0)
    base = make()
    deltas = tune(base, tmp_path, make, settings)
    before = base.state_dict()
    for method, parameters in EXACT.items():
        found = loaded(base, merged_by(tmp_path, method, out=method, parameters=parameters))
        changed = 0
        for name, tensor in before.items():
            moved = sum(w * delta[name] for w, delta in zip(WEIGHTS, deltas, strict=True))
            changed += bool(moved.abs().max() > 0.01)
            torch.testing.assert_close(
                found[name].double(), tensor.double() + moved, rtol=1e-5, atol=5e-6
            )
        assert changed >= 2


def test_each_module_has_its_own_rank(tmp_path):
    tune(bert(), tmp_path, bert, CASES["other modules"][1])
    settings = json.loads((merged_by(tmp_path, "lora_concat") / "adapter_config.json").read_text())
    layers = {
        module: rank
        for module, rank in settings["rank_pattern"].items()
        if module.startswith("encoder.layer.1.")
    }
    assert layers == {
        "encoder.layer.1.attention.self.query": 3,  # 2 + 1
        "encoder.layer.1.attention.self.value": 3,
        "encoder.layer.1.attention.output.dense": 3,
        "encoder.layer.1.intermediate.dense": 3,
        "encoder.layer.1.output.dense": 3,
    }
    assert settings["rank_pattern"]["encoder.layer.0.attention.self.query"] == 2
    assert settings["alpha_pattern"] == settings["rank_pattern"]
    assert settings["layers_to_transform"] is None
    assert len(settings["target_modules"]) == len(settings["rank_pattern"])
    lengths = [len(name) for name in settings["rank_pattern"]]
    assert lengths == sorted(lengths, reverse=True)  # the first pattern that fits is PEFT's
    alike = merged_by(tmp_path, "lora_concat", models=["0", "0"], out="alike")
    file = tmp_path / "1" / "adapter_config.json"  # PEFT saves a set in any order
    turned = json.loads(file.read_text())
    shutil.copytree(tmp_path / "1", tmp_path / "turned")
    turned["target_modules"] = turned["target_modules"][::-1]
    (tmp_path / "turned" / "adapter_config.json").write_text(json.dumps(turned))
    kept = merged_by(tmp_path, "lora_concat", models=["1", "turned"], out="kept")
    kept = json.loads((kept / "adapter_config.json").read_text())
    assert sorted(kept["target_modules"]) == ["dense", "value"]
    settings = json.loads((alike / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (4, 4)
    assert settings["rank_pattern"] == {}
    assert settings["target_modules"] == ["query"]  # as the adapters have it


def test_prefixes_are_those_of_the_first_adapter(family, tmp_path):
    """One of a bare encoder, one of the same under a task head, of other modules."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertModel

    for target, tuned in (("query", "common"), ("key", "apart")):
        body = get_peft_model(
            BertModel.from_pretrained(family / "base"),
            LoraConfig(r=3, target_modules=[target, "intermediate.dense"]),
        )
        for key, parameter in body.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        body.save_pretrained(tmp_path / tuned)
        for models in (
            [family / "sentiment-lora", tmp_path / tuned],
            [tmp_path / tuned, family / "sentiment-lora"],
        ):
            out = tmp_path / f"{tuned}-{models[0].name}"
            alliage.merge("lora_concat", models=models, base=family / "base", out=out)
            names = load_file(out / "adapter_model.safetensors")
            start = "base_model.model." + ("bert.encoder." if "lora" in models[0].name else "enc")
            assert all(name.startswith(start) for name in names)
            one, two = (vectors.open(each, family / "base") for each in models)
            both = vectors.open(out, family / "base")
            for name in both.shapes:
                expected = sum(v.delta(name) for v in (one, two) if name in v.shapes)
                torch.testing.assert_close(both.delta(name), expected, rtol=1e-5, atol=1e-5)


def test_energy_decides_the_ranks_of_the_files(tmp_path):
    tune(bert(), tmp_path, bert, CASES["other modules"][1])
    share = 0.8
    out = merged_by(tmp_path, "lora_svd", parameters={"energy": share})
    content = {"method": "lora_svd", "parameters": {"energy": share}, "models": [str(out)]}
    assert "may be smaller than planned" in plan(parse_recipe(content)).notes[0]
    exact, cut = (
        vectors.open(folder, tmp_path / "base")
        for folder in (merged_by(tmp_path, "lora_concat", out="exact"), out)
    )
    ranks = set()
    for module in exact.modules:
        values = np.linalg.svd(exact.delta(f"{module}.weight").double().numpy())[1] ** 2
        enough = 1 + int(np.searchsorted(np.cumsum(values) / values.sum(), share))
        assert cut.rank(module) == enough
        ranks.add(enough)
        lost = np.linalg.norm(exact.delta(f"{module}.weight") - cut.delta(f"{module}.weight"))
        assert lost**2 == pytest.approx(values[enough:].sum(), rel=1e-3)
    assert len(ranks) > 1
    assert loaded(bert(), out)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("lora_svd", {"energy": 0.9}),
        ("knots", {"rule": "dare_ties", "density": 0.5, "seed": 3}),
        ("core_space", {"rule": "ties"}),
        ("factor_average", {"rule": "dare_linear", "density": 0.4}),
        ("robust_merge", {}),
    ],
)
def test_threads_and_memory_do_not_show(family, tmp_path, method, parameters):
    content = {
        "method": method, "base": str(family / "base"), "parameters": parameters,
        "models": [str(family / f"{name}-lora") for name in ("sentiment", "topics")],
    }  # fmt: skip
    written = []
    for number, (threads, memory) in enumerate([(1, 2**30), (2, 2**30), (2, 2**22)]):
        made = plan(parse_recipe(content), threads=threads, memory=memory)
        run(made, tmp_path / str(number))
        written.append((tmp_path / str(number) / "adapter_model.safetensors").read_bytes())
    assert written[0] == written[1] == written[2]


def test_draws_differ_by_module_and_seed(family, tmp_path):
    def dropped(seed):
        out = tmp_path / f"seed-{seed}"
        alliage.merge(
            "factor_average", models=[family / "sentiment-lora"], base=family / "base", out=out,
            rule="dare_linear", density=0.5, seed=seed,
        )  # fmt: skip
        tensors = load_file(out / "adapter_model.safetensors")
        return {name: tensor == 0 for name, tensor in tensors.items()}

    one, other = dropped(1), dropped(2)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    queries = [mask for name, mask in one.items() if "query.lora_B" in name]
    assert not torch.equal(*queries)
    share = torch.cat([mask.flatten() for mask in one.values()]).float().mean()
    assert 0.4 < share < 0.6


def test_an_output_that_exists_is_refused_before_ranks_are_measured(tmp_path):
    tune(bert(), tmp_path, bert, CASES["ranks and scales"][1])
    content = {"method": "lora_svd", "parameters": {"energy": 0.9}, "models": [str(tmp_path / "0")]}
    stages = []
    with pytest.raises(UsageError, match="exists already"):
        run(plan(parse_recipe(content)), tmp_path / "base", on_event=lambda *e: stages.append(e))
    assert stages == []


def test_weights_over_the_depth(tmp_path):
    tune(bert(), tmp_path, bert, CASES["ranks and scales"][1])
    models = [str(tmp_path / "0"), str(tmp_path / "1")]
    content = {"method": "lora_concat", "models": models, "parameters": {"weight": [0, 1]}}
    run(plan(parse_recipe(content)), tmp_path / "out")
    found = vectors.open(tmp_path / "out", tmp_path / "base")
    one, two = (vectors.open(each, tmp_path / "base") for each in models)
    name = "encoder.layer.{}.attention.self.query.weight"
    assert not found.delta(name.format(0)).any()
    last = name.format(1)
    torch.testing.assert_close(
        found.delta(last), one.delta(last) + two.delta(last), rtol=1e-5, atol=1e-5
    )


def test_types_of_the_output(tmp_path):
    tune(bert(), tmp_path, bert, CASES["ranks and scales"][1])
    out = merged_by(tmp_path, "lora_concat", dtype="bfloat16")
    tensors = load_file(out / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    for method in ("lora_concat", "lora_svd"):
        content = {
            "method": method, "dtype": "float16", "parameters": {"weight": 1e12},
            "models": [str(tmp_path / "0"), str(tmp_path / "1")],
        }  # fmt: skip
        made = plan(parse_recipe(content))
        with pytest.raises(AlliageError, match="some merged values are no finite F16"):
            run(made, tmp_path / "large")
    assert not (tmp_path / "large").exists()


def test_what_is_not_finite_is_named_before_anything_is_decomposed(tmp_path):
    tune(bert(), tmp_path, bert, CASES["ranks and scales"][1])
    file = tmp_path / "1" / "adapter_model.safetensors"
    tensors = load_file(file)
    flawed = sorted(name for name in tensors if "query.lora_A" in name)
    for name in flawed:
        tensors[name][0, 0] = float("nan")
    save_file(tensors, file)
    for method in ("lora_svd", "knots"):
        with pytest.raises(AlliageError) as caught:
            merged_by(tmp_path, method)
        assert [str(problem) for problem in caught.value.problems] == [
            f"{file}: {name}: holds NaN or infinity." for name in flawed
        ]


LARGE = """
from pathlib import Path

import torch
from alliage.merging import get_method
from alliage.merging.low_rank import joined, thin_svd

torch.set_num_threads(1)
draw = torch.Generator().manual_seed(0)
B, A = (torch.randn(3, *shape, generator=draw) for shape in ((8192, 16), (16, 8192)))
small = [[b[:64] for b in B], [a[:, :64] for a in A]]
given = {"factor_average": {}, "robust_merge": {}, "lora_concat": {}, "lora_svd": {},
         "knots": {"rule": "ties"}, "core_space": {"rule": "ties"}}
for name, parameters in given.items():
    get_method(name)(*small, **parameters)  # libraries are loaded
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
before = peak()
for name, parameters in given.items():
    get_method(name)(B, A, **parameters)
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_the_dense_product_is_never_made():
    """An 8192 × 8192 matrix takes 256 MiB in float32, twice that in float64."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, check=True, timeout=300
    )
    assert 0 < int(done.stdout) < 160 * 2**20


@pytest.mark.parametrize("parameters", [{"rank": 2}, {"energy": 0.9}])
def test_an_interrupted_merge_goes_on_to_the_same_bytes(family, tmp_path, parameters):
    content = {
        "method": "lora_svd", "base": str(family / "base"), "parameters": parameters,
        "models": [str(family / f"{name}-lora") for name in ("sentiment", "topics")],
    }  # fmt: skip
    recipe = parse_recipe(content)
    run(plan(recipe), tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(stage, done, total):
        if stage == "merging" and done == 2:
            raise Killed

    with pytest.raises(Killed):
        run(plan(recipe), tmp_path / "out", on_event=kill)
    assert not (tmp_path / "out").exists()
    run(plan(recipe, resume=True), tmp_path / "out", resume=True)
    whole, resumed = (tmp_path / name / "adapter_model.safetensors" for name in ("whole", "out"))
    assert whole.read_bytes() == resumed.read_bytes()
