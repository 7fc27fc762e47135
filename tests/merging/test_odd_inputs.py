"""Merges of inputs that are odd but possible, against dense float64 arithmetic on them."""

import gc
import json
import math
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage.checkpoints.writer import plan_layout
from alliage.cli import main
from alliage.errors import AlliageError, UsageError
from alliage.merging import parse_recipe, plan, run
from tests.merging.methods.test_ties import reference


def store(folder, tensors, *, config=None, shards=None):
    """A checkpoint folder; `shards` lists the names of each file."""
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if shards is None:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {}
    for number, names in enumerate(shards):
        file = f"model-{number:05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def recipe(home, method="task_arithmetic", models=("a", "b"), base="base", **more):
    content = {"method": method, "models": [str(home / name) for name in models]}
    if base is not None:
        content["base"] = str(home / base)
    return parse_recipe(content | more)


def merged(home, *args, out="out", **more):
    run(plan(recipe(home, *args, **more)), home / out)
    return load_file(home / out / "model.safetensors")


def three(shape=(5, 7), seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


def command(monkeypatch, capsys, *words):
    """The exit code and the stderr of a command line."""
    monkeypatch.setattr(sys, "argv", ["alliage", *map(str, words)])
    try:
        main()
        code = 0
    except SystemExit as leave:
        code = leave.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_command_names_file_and_tensor_of_nan_and_infinity(
    tmp_path, monkeypatch, capsys, dtype, value
):
    base, a, b = three(dtype=dtype)
    b[3, 3] = value
    for name, tensor in (("base", base), ("a", a), ("b", b)):
        store(tmp_path / name, {"layers.0.weight": tensor, "norm.weight": tensor[0].clone()})
    code, said = command(
        monkeypatch, capsys, "merge", "--method", "ties", "--base", tmp_path / "base",
        tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out",
    )  # fmt: skip
    assert code == 1
    assert f"{tmp_path / 'b' / 'model.safetensors'}: layers.0.weight: holds NaN or infinity" in said
    assert "norm.weight: " not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "base"]


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, torch.int32), (torch.float16, torch.int16),
                        (torch.bfloat16, torch.int16)]
)  # fmt: skip
@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_denormal_numbers_are_kept_bit_by_bit(tmp_path, dtype, bits, method):
    smallest = torch.tensor([1, 2, 3, 77, 0x7F if dtype == torch.bfloat16 else 0x3FF], dtype=bits)
    tensor = torch.cat([smallest.view(dtype), -smallest.view(dtype)]).repeat(1000)
    assert (tensor != 0).all()
    store(tmp_path / "base", {"layers.0.weight": torch.zeros_like(tensor)})
    store(tmp_path / "a", {"layers.0.weight": tensor})
    parameters = {"average": {}, "task_arithmetic": {"scale": 1.0}, "ties": {"density": 1.0}}
    found = merged(tmp_path, method, ["a"], parameters=parameters[method])["layers.0.weight"]
    assert torch.equal(found.view(bits), tensor.view(bits))


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_empty_tensors_and_single_numbers(tmp_path, method):
    shapes = {"empty": (0, 5), "number": (), "one": (1,), "none": (0,), "weight": (3, 4)}
    drawn = [three(shape) for shape in shapes.values()]
    tensors = [dict(zip(shapes, each, strict=True)) for each in zip(*drawn, strict=True)]
    for name, content in zip(("base", "a", "b"), tensors, strict=True):
        store(tmp_path / name, content)
    density = {"parameters": {"density": 1.0}} if method == "ties" else {}
    found = merged(tmp_path, method, **density)
    base, a, b = tensors
    for name, shape in shapes.items():
        assert found[name].shape == shape
        if method == "average":
            expected = (a[name].double() + b[name].double()) / 2
        elif method == "task_arithmetic":
            deltas = (a[name].double() - base[name].double()) + (b[name] - base[name]).double()
            expected = base[name].double() + 0.4 * deltas
        else:
            flat = torch.stack([(t[name] - base[name]).flatten() for t in (a, b)])
            expected = base[name].double() + reference(flat, 1.0).reshape(shape).double()
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-6, atol=1e-6)


def test_a_model_of_empty_tensors_only(tmp_path):
    for name in ("base", "a", "b"):
        store(tmp_path / name, {"layers.0.weight": torch.zeros(0, 5)})
    for method in ("average", "task_arithmetic", "ties"):
        assert merged(tmp_path, method, out=method)["layers.0.weight"].shape == (0, 5)


def test_a_tensor_far_larger_than_the_memory(tmp_path):
    base, a, b = three((500, 4000))
    for name, tensor in (("base", base), ("a", a), ("b", b)):
        store(tmp_path / name, {"layers.0.weight": tensor})
    chosen = recipe(tmp_path)
    least = plan(chosen).least_memory
    made = plan(chosen, memory=least)
    assert made.working_memory <= least < base.nbytes / 4
    run(made, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")["layers.0.weight"]
    expected = base.double() + 0.4 * (a.double() + b.double() - 2 * base.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("density", [0, 0.0, -0.1, 1.5, math.nan, "most", 10**400])
def test_densities_that_keep_nothing_or_more_than_all(tmp_path, density):
    chosen = recipe(tmp_path, "ties", parameters={"density": density})
    with pytest.raises(UsageError, match="density"):
        plan(chosen)


def test_full_density_trims_nothing(tmp_path):
    base, a, b = three((50, 60))
    for name, tensor in (("base", base), ("a", a), ("b", b)):
        store(tmp_path / name, {"layers.0.weight": tensor})
    found = merged(tmp_path, "ties", parameters={"density": 1})["layers.0.weight"]
    flat = torch.stack([(t - base).flatten() for t in (a, b)])
    torch.testing.assert_close(found.flatten(), base.flatten() + reference(flat, 1.0))


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_models_that_equal_the_base_give_the_base(tmp_path, method):
    tensor = three((40, 30))[0]
    for name in ("base", "a", "b"):
        store(tmp_path / name, {"layers.0.weight": tensor})
    assert torch.equal(merged(tmp_path, method)["layers.0.weight"], tensor)


def test_identical_models_are_their_own_average(tmp_path):
    tensor = three((40, 30))[0]
    for name in ("a", "b"):
        store(tmp_path / name, {"layers.0.weight": tensor})
    assert torch.equal(merged(tmp_path, "average", base=None)["layers.0.weight"], tensor)


def test_twins_meet_no_conflict(tmp_path):
    """The mean of equal deltas is the delta: TIES trims it as one, and no more.

    Of 1200 elements a fifth are 240; the authors' code keeps the threshold's own element too.
    """
    base, a, _ = three((40, 30))
    store(tmp_path / "base", {"layers.0.weight": base})
    for name in ("a", "b"):
        store(tmp_path / name, {"layers.0.weight": a})
    delta = (a - base).double()
    kept = delta.abs() >= delta.abs().flatten().sort(descending=True).values[240]
    found = merged(tmp_path, "ties", parameters={"density": 0.2})["layers.0.weight"]
    expected = base.double() + delta.where(kept, 0)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "types",
    [
        (torch.float32, torch.float16, torch.bfloat16),
        (torch.bfloat16, torch.float32, torch.float64),
        (torch.float64, torch.float32, torch.float16),
        (torch.float16, torch.float64, torch.float64),
    ],
    ids=str,
)
def test_mixed_types_are_merged_in_full_and_rounded_once(tmp_path, types):
    tensors = [t.to(dtype) for t, dtype in zip(three((30, 40)), types, strict=True)]
    for name, tensor in zip(("base", "a", "b"), tensors, strict=True):
        store(tmp_path / name, {"layers.0.weight": tensor})
    found = merged(tmp_path, parameters={"scale": 0.5})["layers.0.weight"]
    assert found.dtype == types[0]
    base, a, b = (tensor.float().double() for tensor in tensors)
    expected = base + 0.5 * (a + b - 2 * base)
    # float32 arithmetic, then half a unit in the last place of the output's type.
    unit = max(torch.finfo(types[0]).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(found.double(), expected, rtol=unit / 2 + 1e-7, atol=1e-6)


def test_a_finite_double_that_float32_cannot_hold_is_named(tmp_path):
    base, a, b = three(dtype=torch.float64)
    b[0, 0] = 1e300
    for name, tensor in (("base", base), ("a", a), ("b", b)):
        store(tmp_path / name, {"layers.0.weight": tensor})
    with pytest.raises(AlliageError, match=r"b.model\.safetensors: layers\.0\.weight"):
        run(plan(recipe(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


NAMES = [
    "模型.weight", "a/b/../../c", "..", ".", "", " ", "line\nbreak", "\x1b[2J", "\0", "e\u0301.é",
    "layers.0.weight", "layers.00.weight", "x" * 5000, '"quoted"\\', "\u202eright-to-left",
]  # fmt: skip


def test_tensors_of_any_name_keep_it(tmp_path):
    models = []
    for number, name in enumerate(("base", "a", "b")):
        models.append(
            {tensor: torch.full((2, 2), float(number + k)) for k, tensor in enumerate(NAMES)}
        )
        store(tmp_path / name, models[-1])
    found = merged(tmp_path, "average")
    assert found.keys() == set(NAMES)
    for name in NAMES:
        assert torch.equal(found[name], (models[1][name] + models[2][name]) / 2)
    run(plan(recipe(tmp_path, "average", ["out", "out"])), tmp_path / "again")
    assert found.keys() == load_file(tmp_path / "again" / "model.safetensors").keys()


@pytest.fixture
def home(tmp_path):
    """base, a and b: two tensors each."""
    for name, tensor in zip(("base", "a", "b"), three((64, 64)), strict=True):
        store(tmp_path / name, {"layers.0.weight": tensor, "norm.weight": tensor[0].clone()})
    return tmp_path


def listing(folder):
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused_beforehand(home):
    (home / "locked").mkdir(mode=0o555)
    assert "cannot be written to" in str(plan(recipe(home), out=home / "locked" / "out").problems)


def test_outputs_that_cannot_be_made_are_refused_beforehand(home):
    (home / "dangling").symlink_to("nowhere")
    taken = ("base", "base/model.safetensors", "dangling")
    for out in (*taken, "base/model.safetensors/out"):
        problems = plan(recipe(home), out=home / out).problems
        assert [problem.where for problem in problems] == [str(home / out)], out
        with pytest.raises(UsageError):
            run(plan(recipe(home)), home / out)


def test_an_output_inside_an_input_leaves_the_input_as_it_was(home):
    before = {name: listing(home / name) for name in ("base", "a", "b")}
    inside = merged(home, out="a/merged")
    after = {name: listing(home / name) for name in ("base", "a", "b")}
    after["a"] = {k: v for k, v in after["a"].items() if not k.startswith("merged")}
    assert after == before
    beside = merged(home)
    assert all(torch.equal(inside[name], tensor) for name, tensor in beside.items())


@pytest.mark.skipif(sys.platform != "linux", reason="counts /proc/self/fd")
def test_plans_that_are_dropped_leave_no_file_open(home):
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # of earlier tests
    before = opened()
    for _ in range(10):
        made = plan(recipe(home))
        assert opened() >= before + 3
    del made
    gc.collect()
    assert opened() == before


def test_models_behind_symbolic_links(home):
    (home / "store").mkdir()
    for name in ("a", "b"):
        (home / name / "model.safetensors").rename(home / "store" / name)
        (home / name / "model.safetensors").symlink_to(f"../store/{name}")
        (home / f"link-{name}").symlink_to(name)
    linked = merged(home, models=["link-a", "link-b"])
    direct = merged(home, out="direct")
    assert all(torch.equal(linked[name], tensor) for name, tensor in direct.items())


@pytest.mark.parametrize("copies", ["base", "all", "models"])
def test_tied_weights_whoever_stores_both_names(tmp_path, copies):
    config = {"model_type": "llama", "tie_word_embeddings": True}
    tensors = three((20, 8))
    for name, tensor in zip(("base", "a", "b"), tensors, strict=True):
        content = {"model.embed_tokens.weight": tensor}
        if copies == "all" or (copies == "base") == (name == "base"):
            content["lm_head.weight"] = tensor.clone()
        store(tmp_path / name, content, config=config)
    found = merged(tmp_path)
    base, a, b = tensors
    expected = base.double() + 0.4 * (a.double() + b.double() - 2 * base.double())
    names = {"model.embed_tokens.weight", "lm_head.weight"}
    assert found.keys() == (names if copies != "models" else names - {"lm_head.weight"})
    for tensor in found.values():
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)


def test_shards_of_every_model_may_lie_differently(tmp_path):
    names = [f"layers.{k}.weight" for k in range(4)]
    models = [{name: t + k for k, name in enumerate(names)} for t in three((9, 9))]
    layouts = (None, [[name] for name in names], [names[2:], names[:2]])
    for name, content, shards in zip(("base", "a", "b"), models, layouts, strict=True):
        store(tmp_path / name, content, shards=shards)
    found = merged(tmp_path, "average")
    for name in names:
        expected = (models[1][name].double() + models[2][name].double()) / 2
        torch.testing.assert_close(found[name].double(), expected, rtol=0, atol=1e-6)


def test_an_output_of_one_tensor_in_each_shard(home):
    whole = merged(home)
    made = plan(recipe(home))
    tensors = [(s.name, s.dtype, s.shape) for specs in made.layout.shards.values() for s in specs]
    made.layout = plan_layout(tensors, max_shard_bytes=1)
    assert len(made.layout.shards) == 2
    run(made, home / "shards")
    index = json.loads((home / "shards" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys()
    for name, file in index["weight_map"].items():
        content = load_file(home / "shards" / file)
        assert content.keys() == {name}
        assert torch.equal(content[name], whole[name])


def test_a_flaw_in_a_head_that_is_left_apart_is_named_too(tmp_path):
    """Each model keeps its own classifier beside the merged body."""
    base, a, b = three()
    for name, tensor in (("base", base), ("a", a), ("b", b)):
        store(tmp_path / name, {"layers.0.weight": tensor} | (
            {"classifier.weight": torch.full((2, 7), math.nan)} if name == "b" else {}
        ))  # fmt: skip
    with pytest.raises(AlliageError, match=r"b.model\.safetensors: classifier\.weight: holds NaN"):
        run(plan(recipe(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "architectures", [None, [], {}, "ForX", [None], ["BertForSequenceClassification"]]
)
def test_a_head_of_a_single_number_under_any_configuration(tmp_path, architectures):
    base, a, b = three()
    for name, tensor in (("base", base), ("a", a), ("b", b)):
        head = {"logits_proj.bias": torch.tensor(1.5)} if name != "base" else {}
        config = {"architectures": architectures}
        store(tmp_path / name, {"layers.0.weight": tensor} | head, config=config)
    run(plan(recipe(tmp_path)), tmp_path / "out")
    kept = load_file(tmp_path / "out" / "heads" / "b" / "head.safetensors")
    assert kept["logits_proj.bias"] == 1.5
    assert (
        json.loads((tmp_path / "out" / "heads" / "b" / "head.json").read_text())["num_labels"] == 1
    )
