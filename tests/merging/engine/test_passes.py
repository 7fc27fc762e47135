"""First passes over groups of tensors: what they find, for whom, and how often they read."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage.errors import AlliageError
from alliage.merging import plan, run, ties
from alliage.merging.engine.blocks import Block
from alliage.merging.engine.computing import computing_for
from alliage.merging.engine.passes import Statistics, measure
from alliage.merging.planning.plan import Copied
from tests.merging.test_odd_inputs import recipe, store

SHAPES = {"layers.0.query.weight": (70, 61), "layers.0.query.bias": (61,),
          "layers.1.query.weight": (13, 700), "norm.weight": (), "empty.weight": (0,)}  # fmt: skip


@pytest.fixture
def home(tmp_path):
    """Coarse weights of different sizes, so that thresholds differ and are met more than once."""
    for seed, name in enumerate(("base", "a", "b")):
        draw = torch.Generator().manual_seed(seed)
        content = {
            key: (torch.randn(shape, generator=draw) * (4 + 3 * number)).round()
            for number, (key, shape) in enumerate(SHAPES.items())
        }
        store(tmp_path / name, content)
    return tmp_path


def deltas(home):
    base, *models = (load_file(home / name / "model.safetensors") for name in ("base", "a", "b"))
    return {key: np.stack([(m[key] - base[key]).flatten().numpy() for m in models]) for key in base}


GROUPS = {
    "model": [sorted(SHAPES)],
    "module": [["layers.0.query.bias", "layers.0.query.weight"], ["layers.1.query.weight"],
               ["norm.weight"], ["empty.weight"]],
    "tensor": [[name] for name in SHAPES],
}  # fmt: skip


def measured(home, threads=1, memory=None, **parameters):
    chosen = recipe(home, "ties", parameters=parameters)
    made = plan(chosen, threads=threads)
    if memory == "least":
        made = plan(chosen, threads=threads, memory=made.memory_for(threads))
    computing = computing_for(made, None)
    return made, measure(made, computing, made.block, lambda *_: None)


@pytest.mark.parametrize("trim", GROUPS)
def test_modules_group_weight_with_bias(home, trim):
    made = plan(recipe(home, "ties", parameters={"trim": trim}))
    groups = [sorted(tensor.name for tensor in group) for group in made.groups()]
    assert sorted(groups) == sorted(GROUPS[trim])
    sizes = [sum(tensor.spec.numel for tensor in group) for group in made.groups()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("trim", GROUPS)
def test_each_group_has_the_sorted_threshold_of_its_vector(home, trim, threads):
    made, found = measured(home, threads, "least", trim=trim, density=0.3)
    vectors = deltas(home)
    for names in GROUPS[trim]:
        joined = np.abs(np.concatenate([vectors[name] for name in names], axis=1))
        size = joined.shape[1]
        rank = size - int(size * 0.3)
        expected = np.sort(joined, axis=1)[:, rank - 1].tolist() if size else [0.0, 0.0]
        for tensor in made.merged:
            if tensor.name in names:
                given = found.arguments(Block(tensor, 0, min(made.block, tensor.spec.numel)))
                assert given["thresholds"] == expected


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("trim", GROUPS)
def test_blocks_share_out_exactly_the_entries_that_stay(home, trim, threads):
    density = 0.3
    chosen = recipe(home, "ties", parameters={"trim": trim, "density": density, "kept": "count"})
    run(plan(chosen, threads=threads, memory=plan(chosen, threads=threads).memory_for(threads)),
        home / "out")  # fmt: skip
    vectors = deltas(home)
    out = load_file(home / "out" / "model.safetensors")
    base = load_file(home / "base" / "model.safetensors")
    order = list(plan(chosen).merged)  # the order in which a vector's entries are counted
    for names in GROUPS[trim]:
        inside = [tensor.name for tensor in order if tensor.name in names]
        joined = np.concatenate([vectors[name] for name in inside], axis=1)
        kept = np.zeros_like(joined)
        for row, values in enumerate(joined):
            first = np.argsort(-np.abs(values), kind="stable")[: int(len(values) * density)]
            kept[row, first] = values[first]
        # what is trimmed already is merged as it is, with the whole merge's majority
        merged = ties(torch.from_numpy(kept), density=1.0, majority=majority(vectors, trim, order))
        place = 0
        for name in inside:
            size = vectors[name].shape[1]
            expected = base[name].flatten() + merged[place : place + size]
            assert torch.equal(out[name].flatten(), expected), name
            place += size


def majority(vectors, trim, order):
    """Of all votes of the whole model."""
    total = 0
    for names in GROUPS[trim]:
        inside = [tensor.name for tensor in order if tensor.name in names]
        joined = np.concatenate([vectors[name] for name in inside], axis=1)
        votes = np.zeros(joined.shape[1])
        for values in joined:
            first = np.argsort(-np.abs(values), kind="stable")[: int(len(values) * 0.3)]
            votes[first] += values[first]
        total += np.sign(votes).sum()
    return float(np.sign(total))


@pytest.mark.parametrize("kept", ["threshold", "count"])
def test_what_is_found_survives_the_journal(home, kept):
    made, found = measured(home, trim="module", kept=kept, memory="least")
    again = Statistics.from_json(made, made.block, json.loads(json.dumps(found.to_json())))
    assert again.passes == found.passes
    assert any("quota" in group.by_block for group in found.groups) == (kept == "count")
    for tensor in made.merged:
        for start in range(0, max(1, tensor.spec.numel), made.block):
            block = Block(tensor, start, min(start + made.block, tensor.spec.numel))
            assert again.arguments(block) == found.arguments(block)
    assert found.arguments(Block(Copied("x", "x"), 0, 1)) == {}


def test_a_large_vector_is_read_once_after_its_sample(tmp_path):
    size = 2**20 + 2**19
    for seed, name in enumerate(("base", "a")):
        draw = torch.Generator().manual_seed(seed)
        tensor = torch.randn(size, generator=draw).bfloat16()
        store(tmp_path / name, {"layers.0.weight": tensor})
    stages = []
    chosen = recipe(tmp_path, "ties", ["a"], parameters={"density": 0.2})
    made = plan(chosen)
    computing = computing_for(made, None)
    found = measure(made, computing, made.block, lambda stage, *_: stages.append(stage))
    assert found.passes == 1
    assert stages == ["first pass"] * -(-size // made.block)
    base, model = (
        load_file(tmp_path / name / "model.safetensors")["layers.0.weight"].float()
        for name in ("base", "a")
    )
    expected = (model - base).abs().sort().values[size - int(size * 0.2) - 1]
    assert found.groups[0].shared["thresholds"] == [expected.item()]


@pytest.mark.parametrize("trim", ["model", "tensor"])
def test_flaws_of_all_inputs_are_raised_after_the_pass(home, trim):
    for name, key in (("a", "layers.0.query.weight"), ("b", "layers.1.query.weight")):
        content = load_file(home / name / "model.safetensors")
        content[key].view(-1)[5] = float("nan")
        store(home / f"spoiled-{name}", content)
    made = plan(recipe(home, "ties", ["spoiled-a", "spoiled-b"], parameters={"trim": trim}))
    with pytest.raises(AlliageError) as caught:
        measure(made, computing_for(made, None), made.block, lambda *_: None)
    named = sorted(str(problem).split(": ")[1] for problem in caught.value.problems)
    assert named == ["layers.0.query.weight", "layers.1.query.weight"]


class Endless:
    """A first pass that asks for all blocks again and again."""

    reads = ()
    asked = 0

    def __init__(self, models, numel):
        pass

    @staticmethod
    def scope(**parameters):
        return "model"

    @staticmethod
    def least_passes(**parameters):
        return 1

    @staticmethod
    def memory(models, sampled):
        return 0

    def update(self, tensors, place, uniform=None):
        pass

    def result(self):
        type(self).asked += 1


def endless(plug_in):
    Endless.asked = 0
    plug_in("endless", unit="block", space="delta", paper="none", first_pass=Endless)(
        lambda deltas: deltas.mean(0)
    )


def test_a_first_pass_without_an_end_is_ended(home, plug_in):
    endless(plug_in)
    said = r"^method endless: its first pass has no result after 100 passes over all blocks\. "
    with pytest.raises(AlliageError, match=said):
        run(plan(recipe(home, "endless")), home / "out")
    assert Endless.asked == 101
    assert not (home / "out").exists()


def test_a_rule_whose_first_pass_has_no_end_is_ended(home, plug_in):
    endless(plug_in)
    store(home / "square", {f"layers.{k}.weight": torch.zeros(24, 24) for k in range(2)})
    for name in ("x", "y"):
        (home / name).mkdir()
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["0", "1"]}
        (home / name / "adapter_config.json").write_text(json.dumps(settings))
        factors = {
            f"base_model.model.layers.{k}.lora_{factor}.weight": torch.randn(shape)
            for k in range(2)
            for factor, shape in (("A", (2, 24)), ("B", (24, 2)))
        }
        save_file(factors, home / name / "adapter_model.safetensors")
    chosen = recipe(home, "core_space", ["x", "y"], "square", parameters={"rule": "endless"})
    with pytest.raises(AlliageError, match="method endless: its first pass has no result"):
        run(plan(chosen), home / "out")
