"""Models rebuilt from a merge that kept their masks, against dense arithmetic on tensors."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage import vectors
from alliage.checkpoints import provenance
from alliage.errors import AlliageError, UsageError
from alliage.merging import parse_recipe, plan, run
from tests.merging.test_odd_inputs import store

# Worked out in tests/merging/methods/test_emr.py; nine elements, so that the last byte is not full.
BASE = torch.tensor([10.0, 10, 10, 10, 10, 10, 10, 10, 10])
DELTAS = {
    "a": torch.tensor([1.0, -4.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0]),
    "b": torch.tensor([3.0, 1.0, -2.5, 0.0, -3.0, 0.0, 0.0, 0.0, 2.0]),
    "c": torch.tensor([-2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]),
}
UNIFIED = torch.tensor([3.0, -4.0, 2.0, 0.0, -3.0, 0.0, 0.0, 0.0, 3.0])
MASKS = {
    "a": [1, 1, 1, 0, 0, 0, 0, 0, 1],
    "b": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "c": [0, 0, 1] + 5 * [0] + [1],
}
# a: 1+4+2+3+1 = 11 over 3+4+2+3 = 12; b: 11.5 over 3+3+3 = 9; c: 7 over 2+3 = 5
SCALES = {"a": 11 / 12, "b": 11.5 / 9, "c": 7 / 5}


def small(home):
    store(home / "base", {"layers.0.weight": BASE})
    for name, delta in DELTAS.items():
        store(home / name, {"layers.0.weight": BASE + delta})
    return {"base": home / "base", "models": [home / name for name in DELTAS]}


def bits(raw: torch.Tensor, numel: int) -> list[int]:
    return [int(raw[place // 8]) >> (place % 8) & 1 for place in range(numel)]


def test_emr_worked_out_by_hand(tmp_path):
    alliage.merge("emr", **small(tmp_path), out=tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")["layers.0.weight"]
    assert torch.equal(merged, BASE + UNIFIED)
    for name in DELTAS:
        stored = load_file(tmp_path / "out" / "tasks" / f"{name}.safetensors")
        assert stored["alliage.scale"].tolist() == [SCALES[name]]
        assert stored["layers.0.weight"].dtype == torch.uint8
        assert stored["layers.0.weight"].shape == (2,)
        assert bits(stored["layers.0.weight"], 9) == MASKS[name]
        rebuilt = alliage.apply(tmp_path / "out", task=name, out=tmp_path / f"again-{name}").out
        expected = BASE + SCALES[name] * UNIFIED * torch.tensor(MASKS[name])
        found = load_file(rebuilt / "model.safetensors")["layers.0.weight"]
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


def test_tall_masks_worked_out_by_hand(tmp_path):
    # sums 2, -2, 0.5, 0, 0, 0, 0, 0, 6 less a's 1, 2, -1.5, 0, -3, 0, 0, 0, 5: at λ = 0.5 a keeps
    # 1 ≥ 0.5, 4 ≥ 1, 2 ≥ 0.75, 0 ≥ 0, 3 ≥ 1.5, ..., but not 1 ≥ 2.5.
    alliage.merge("tall_masks", **small(tmp_path), strictness=0.5, out=tmp_path / "out")
    stored = load_file(tmp_path / "out" / "tasks" / "a.safetensors")
    assert stored["alliage.scale"].tolist() == [1.0]
    assert bits(stored["layers.0.weight"], 9) == [1, 1, 1, 1, 1, 1, 1, 1, 0]
    rebuilt = alliage.apply(tmp_path / "out", task="a", out=tmp_path / "again").out
    found = load_file(rebuilt / "model.safetensors")["layers.0.weight"]
    assert (found - BASE).tolist() == [2.0, -2.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """More than one block of the smallest size, odd sizes, three models."""
    home = tmp_path_factory.mktemp("large")
    generator = torch.Generator().manual_seed(0)
    shapes = {"layers.0.weight": (123, 101), "layers.0.bias": (123,), "norm.weight": (1,)}
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    store(home / "base", base)
    tuned = {}
    for name in "abc":
        tuned[name] = {
            key: value + 0.1 * torch.randn(value.shape, generator=generator)
            for key, value in base.items()
        }
        store(home / name, tuned[name])
    return home, base, tuned


def recipe(home, method="emr", **more):
    models = [str(home / name) for name in "abc"]
    return parse_recipe({"method": method, "base": str(home / "base"), "models": models, **more})


def content(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.safetensors")}


@pytest.mark.parametrize("method", ["emr", "tall_masks"])
def test_threads_and_blocks_write_the_same_bytes(large, tmp_path, method):
    home, _, _ = large
    chosen = recipe(home, method)
    written = []
    for number, (threads, memory) in enumerate([(1, 2**30), (2, 2**30), (1, None), (2, None)]):
        least = plan(chosen, threads=threads).memory_for(threads)
        made = plan(chosen, threads=threads, memory=memory or least)
        assert (made.block < 123 * 101) == (memory is None)
        run(made, tmp_path / str(number))
        written.append(content(tmp_path / str(number)))
    assert len(written[0]) == 4
    assert all(each == written[0] for each in written)


def test_scales_and_masks_are_those_of_whole_models(large, tmp_path):
    """The paper's words on flat vectors, in numpy's float64."""
    home, base, tuned = large
    run(plan(recipe(home)), tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    flat = {n: np.concatenate([(t[k] - base[k]).flatten() for k in base]) for n, t in tuned.items()}
    total = (flat["a"] + flat["b"]) + flat["c"]
    sign = np.where(total > 0, 1, -1)
    unified = sign * np.max(
        [np.where(np.sign(d) == sign, abs(d), 0) for d in flat.values()], axis=0
    )
    for name, delta in flat.items():
        mask = delta * unified > 0
        scale = (
            np.abs(delta.astype(np.float64)).sum() / np.abs(unified.astype(np.float64))[mask].sum()
        )
        stored = load_file(tmp_path / "out" / "tasks" / f"{name}.safetensors")
        assert stored["alliage.scale"].item() == pytest.approx(scale, rel=1e-12)
        vector = vectors.open(tmp_path / "out" / "tasks" / f"{name}.safetensors", home / "base")
        found = np.concatenate([vector.delta(key).flatten() for key in base])
        stored_unified = np.concatenate([(merged[k] - base[k]).flatten() for k in base])
        np.testing.assert_allclose(found, scale * stored_unified * mask, rtol=1e-6, atol=0)
        assert np.array_equal(vector.block("layers.0.weight", 13, 4099), found[13:4099])


def test_rebuilding_brings_a_task_nearer_than_the_merge(large, tmp_path):
    home, _, tuned = large
    run(plan(recipe(home)), tmp_path / "out")
    run(plan(recipe(home, "task_arithmetic")), tmp_path / "sum")
    alliage.apply(tmp_path / "out", task="b", out=tmp_path / "b")
    distances = {
        name: sum(
            float((tensor - tuned["b"][key]).square().sum())
            for key, tensor in load_file(tmp_path / name / "model.safetensors").items()
        )
        for name in ("out", "sum", "b")
    }
    assert distances["b"] < distances["sum"]
    assert distances["b"] < distances["out"]


def test_bfloat16_masks_are_those_of_the_exact_vectors(large, tmp_path):
    home, _, _ = large
    run(plan(recipe(home)), tmp_path / "full")
    run(plan(recipe(home, dtype="bfloat16")), tmp_path / "half")
    full, half = (content(tmp_path / name) for name in ("full", "half"))
    assert full["tasks/a.safetensors"] == half["tasks/a.safetensors"]
    assert full["model.safetensors"] != half["model.safetensors"]
    alliage.apply(tmp_path / "half", task="a", out=tmp_path / "again")
    assert provenance.verify(tmp_path / "again")[1] == []


def test_the_output_is_verified_and_killed_writers_leave_nothing_wrong(large, tmp_path):
    """An interrupted pass over the masks is made anew."""
    home, _, _ = large
    chosen = recipe(home)
    run(plan(chosen), tmp_path / "whole")

    def interrupt(stage, done, total):
        if stage == "masks" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan(chosen), tmp_path / "out", on_event=interrupt)
    assert not (tmp_path / "out").exists()
    record = run(plan(chosen, resume=True), tmp_path / "out", resume=True)
    assert record.parts_kept > 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    compared, problems = provenance.verify(tmp_path / "out")
    assert problems == []
    assert compared == 4 + 4
    (tmp_path / "out" / "tasks" / "c.safetensors").unlink()
    assert "c.safetensors" in str(provenance.verify(tmp_path / "out")[1][0])


def test_a_classifier_comes_back_with_its_head(family, tmp_path):
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    models = [family / "sentiment", family / "topics"]
    alliage.merge("emr", base=family / "base", models=models, out=tmp_path / "out")
    _, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    alliage.apply(tmp_path / "out", task="topics", out=tmp_path / "topics")
    again, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "topics", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(again.config.id2label.values()) == ["weather", "sport", "arts"]
    own = AutoModelForSequenceClassification.from_pretrained(family / "topics")
    assert torch.equal(again.classifier.weight, own.classifier.weight)
    AutoTokenizer.from_pretrained(tmp_path / "topics")
    assert provenance.verify(tmp_path / "topics")[1] == []
    record = json.loads((tmp_path / "topics" / "alliage.json").read_text())
    assert record["labels"] == ["weather", "sport", "arts"]
    files = [file["file"] for source in record["inputs"] for file in source["files"]]
    assert {"head.safetensors", "topics.safetensors", "model.safetensors"} <= set(files)


def test_masks_of_one_model_give_that_model(large, tmp_path):
    """Nothing was in its way: λ = 1 and all that it changed is kept."""
    home, _, tuned = large
    models = {"base": home / "base", "models": [home / "a"]}
    alliage.merge("emr", **models, out=tmp_path / "out")
    alliage.apply(tmp_path / "out", task="a", out=tmp_path / "again")
    found = load_file(tmp_path / "again" / "model.safetensors")
    for name, tensor in tuned["a"].items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def test_adapters_come_back_as_full_models_with_their_heads(family, tmp_path):
    """Of a single one nothing is lost: the same as applying it."""
    adapters = [family / "topics-lora"]
    alliage.merge("emr", base=family / "base", models=adapters, out=tmp_path / "out")
    found, expected = (
        alliage.apply(*given, out=tmp_path / name, **more).out
        for name, given, more in (
            ("again", [tmp_path / "out"], {"task": "topics-lora"}),
            ("applied", [family / "topics-lora"], {}),
        )
    )
    one, other = (
        {
            key: value
            for file in sorted(folder.glob("*.safetensors"))
            for key, value in load_file(file).items()
        }
        for folder in (found, expected)
    )
    assert one.keys() == other.keys()
    assert "classifier.weight" in one
    for name, tensor in other.items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-6, atol=1e-6)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (found, expected)]
    assert configs[0]["id2label"] == configs[1]["id2label"]


def test_masks_are_vectors_like_others(large, tmp_path):
    """A task's masks may stand in a recipe where a model does."""
    home, base, _ = large
    run(plan(recipe(home)), tmp_path / "out")
    refs = [str(tmp_path / "out" / "tasks" / f"{name}.safetensors") for name in "ab"]
    alliage.merge("average", base=home / "base", models=refs, out=tmp_path / "both")
    found = load_file(tmp_path / "both" / "model.safetensors")
    vector = [vectors.open(ref, home / "base") for ref in refs]
    for name, tensor in base.items():
        expected = tensor + (vector[0].delta(name) + vector[1].delta(name)) / 2
        torch.testing.assert_close(found[name], expected)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_masks_of_a_large_tensor_take_no_more_than_blocks(tmp_path):
    """Models of 64 MiB in one tensor: to hold one of them would break the bound."""
    from benchmarks.merge_scaling import measure_run

    for seed, name in enumerate(("base", "a", "b", "c")):
        generator = torch.Generator().manual_seed(seed)
        tensor = torch.randn(2**14, 1024, generator=generator)
        store(tmp_path / name, {"layers.0.weight": tensor})
    chosen = {"method": "emr", "base": str(tmp_path / "base")}
    chosen["models"] = [str(tmp_path / name) for name in "abc"]
    budget = 48 * 2**20
    assert measure_run(chosen, tmp_path / "out", memory=budget)["peak"] < budget + 60 * 2**20


@pytest.fixture(scope="module")
def merged(large, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "out"
    run(plan(recipe(large[0])), out)
    return out


def refused(*, error, match, tmp_path, ref, **given):
    with pytest.raises(error, match=match):
        alliage.apply(ref, out=tmp_path / "rebuilt", **given)
    assert not (tmp_path / "rebuilt").exists()


def test_an_unknown_task(merged, tmp_path):
    refused(
        error=UsageError, match=r"no such task\. Known: 'a', 'b', 'c'",
        tmp_path=tmp_path, ref=merged, task="zebra",
    )  # fmt: skip


def test_a_model_without_masks(large, tmp_path):
    refused(
        error=UsageError, match="holds no masks of tasks", tmp_path=tmp_path,
        ref=large[0] / "a", task="a",
    )  # fmt: skip


def test_a_merged_model_without_a_task(merged, tmp_path):
    refused(
        error=UsageError, match="a task of a merged model: --task", tmp_path=tmp_path,
        ref=merged,
    )  # fmt: skip


def test_masks_of_another_merge(large, merged, tmp_path):
    shutil.copytree(merged, tmp_path / "mixed")
    run(plan(recipe(large[0], "tall_masks")), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "tasks" / "a.safetensors", tmp_path / "mixed" / "tasks")
    refused(
        error=AlliageError, match=r"a\.safetensors: is not what the merge wrote",
        tmp_path=tmp_path, ref=tmp_path / "mixed", task="a",
    )  # fmt: skip


def test_merged_weights_that_changed(merged, tmp_path):
    shutil.copytree(merged, tmp_path / "mixed")
    tensors = load_file(merged / "model.safetensors")
    tensors["norm.weight"] += 1
    save_file(tensors, tmp_path / "mixed" / "model.safetensors")
    refused(
        error=AlliageError, match=r"model\.safetensors: is not what the merge wrote",
        tmp_path=tmp_path, ref=tmp_path / "mixed", task="a",
    )  # fmt: skip


def test_another_base(large, merged, tmp_path):
    refused(
        error=UsageError, match="is not of the base that the merge counts from",
        tmp_path=tmp_path, ref=merged, task="a", base=large[0] / "b",
    )  # fmt: skip


def test_a_base_that_moved_is_asked_for(large, tmp_path):
    shutil.copytree(large[0], tmp_path / "home")
    run(plan(recipe(tmp_path / "home")), tmp_path / "out")
    (tmp_path / "home" / "base").rename(tmp_path / "moved")
    refused(
        error=UsageError, match=r"which is not there\. Say where it is \(--base\)",
        tmp_path=tmp_path, ref=tmp_path / "out", task="a",
    )  # fmt: skip
    rebuilt = alliage.apply(
        tmp_path / "out", task="a", base=tmp_path / "moved", out=tmp_path / "rebuilt"
    )
    assert (rebuilt.out / "model.safetensors").is_file()


def test_no_record_of_the_merge(merged, tmp_path):
    shutil.copytree(merged, tmp_path / "bare")
    (tmp_path / "bare" / "alliage.json").unlink()
    refused(
        error=AlliageError, match=r"has no alliage\.json of the merge", tmp_path=tmp_path,
        ref=tmp_path / "bare", task="a",
    )  # fmt: skip


def test_another_architecture(merged, tmp_path):
    store(tmp_path / "other", {"layers.0.weight": torch.zeros(3, 3)})
    with pytest.raises(AlliageError, match=r"the base, has \[3, 3\] of this name, not \[123"):
        vectors.open(merged / "tasks" / "a.safetensors", tmp_path / "other")


def test_a_damaged_header(merged, tmp_path):
    shutil.copytree(merged, tmp_path / "bad")
    file = tmp_path / "bad" / "tasks" / "a.safetensors"
    tensors = load_file(file)
    del tensors["norm.weight"]
    metadata = {"alliage.task": "a", "alliage.shapes": '{"norm.weight": [1]}'}
    save_file(tensors, file, metadata)
    with pytest.raises(AlliageError, match="contradict each other"):
        vectors.open(file, merged)


def test_stacked_layers(large):
    slices = [{"models": [{"model": str(large[0] / "a"), "layers": [0, 1]}]}]
    content = {"method": "emr", "base": str(large[0] / "base"), "slices": slices}
    assert "cannot stack layers" in str(plan(parse_recipe(content)).problems[0])


def test_extracting_a_lora(large, merged, tmp_path):
    with pytest.raises(UsageError, match="is the masks of a task"):
        alliage.extract(
            merged / "tasks" / "a.safetensors", base=large[0] / "base", rank=2,
            out=tmp_path / "out",
        )  # fmt: skip
