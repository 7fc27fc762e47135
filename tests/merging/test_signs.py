"""Signs saved from one model and given to TIES, against the paper's words on dense vectors."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import alliage
from alliage.checkpoints import provenance
from alliage.errors import AlliageError, UsageError
from alliage.merging import load_recipe, parse_recipe, plan, run
from tests.merging.test_odd_inputs import store

SHAPES = {"layers.0.weight": (123, 101), "layers.0.bias": (123,), "norm.weight": (1,)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """base, a, b, c and a multi-task model; coarse, so that votes cancel and signs are zero."""
    folder = tmp_path_factory.mktemp("signs")
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    store(folder / "base", base)
    for name in ("a", "b", "c", "multitask"):
        moved = {
            key: value + torch.randint(-3, 4, value.shape, generator=generator) / 8
            for key, value in base.items()
        }
        store(folder / name, moved)
    alliage.signs(folder / "multitask", base=folder / "base", out=folder / "oracle.safetensors")
    return folder


def flat(home, name):
    base, model = (load_file(home / n / "model.safetensors") for n in ("base", name))
    return np.concatenate([(model[key] - base[key]).flatten() for key in SHAPES])


def recipe(home, **more):
    models = [str(home / name) for name in "abc"]
    content = {"method": "ties", "base": str(home / "base"), "models": models}
    return parse_recipe(content | {"signs": str(home / "oracle.safetensors")} | more)


def merged(out, home):
    base, model = load_file(home / "base" / "model.safetensors"), load_file(out)
    return np.concatenate([(model[key] - base[key]).flatten() for key in SHAPES])


def test_signs_worked_out_by_hand(tmp_path):
    store(tmp_path / "base", {"w": torch.tensor([[1.0, 2.0], [3.0, -4.0]])})
    store(tmp_path / "tuned", {"w": torch.tensor([[1.5, 2.0], [-3.0, -4.0 + 2**-20]])})
    out = tmp_path / "signs.safetensors"
    record = alliage.signs(tmp_path / "tuned", base=tmp_path / "base", out=out)
    found = load_file(out)["w"]
    assert found.dtype == torch.int8
    assert found.tolist() == [[1, 0], [-1, 1]]
    assert (record.positive, record.negative, record.zero) == (2, 1, 1)
    assert record.bytes_written == out.stat().st_size
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["alliage.signs"] == "tuned"
    inputs = json.loads(metadata["alliage.inputs"])
    assert [source["role"] for source in inputs] == ["base", "model tuned"]
    assert all(len(source["files"][0]["sha256"]) == 64 for source in inputs)


def in_the_papers_words(vectors, density, signs):
    """Trim, take the given signs, average what agrees: over one entry after the other."""
    d = len(signs)
    kept = []
    for vector in vectors:
        limit = np.sort(np.abs(vector))[d - int(d * density) - 1]
        kept.append(np.where(np.abs(vector) >= limit, vector, 0))
    result = np.zeros(d)
    for place in range(d):
        agreeing = [v[place] for v in kept if v[place] != 0 and np.sign(v[place]) == signs[place]]
        result[place] = np.mean(np.array(agreeing, np.float64)) if agreeing else 0
    return result


@pytest.mark.parametrize("density", [0.2, 0.6])
def test_ties_by_given_signs_is_the_papers_oracle(home, tmp_path, density):
    run(plan(recipe(home, parameters={"density": density})), tmp_path / "out")
    found = merged(tmp_path / "out" / "model.safetensors", home)
    vectors = [flat(home, name) for name in "abc"]
    expected = in_the_papers_words(vectors, density, np.sign(flat(home, "multitask")))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    run(plan(recipe(home, parameters={"density": density}, signs=None)), tmp_path / "elected")
    elected = merged(tmp_path / "elected" / "model.safetensors", home)
    assert not np.allclose(found, elected, atol=1e-3)


def test_threads_and_blocks_write_the_same_bytes(home, tmp_path):
    written = []
    for number, (threads, small) in enumerate([(1, False), (2, False), (1, True), (2, True)]):
        least = plan(recipe(home), threads=threads).memory_for(threads)
        made = plan(recipe(home), threads=threads, memory=least if small else 2**30)
        assert (made.block < 123 * 101) == small
        run(made, tmp_path / str(number))
        written.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert len(set(written)) == 1


def test_signs_of_a_merge_given_to_it_again_change_nothing(home, tmp_path):
    """What a merge elected; entries without a vote are zero in both."""
    run(plan(recipe(home, signs=None, dtype="float32")), tmp_path / "first")
    alliage.signs(tmp_path / "first", base=home / "base", out=tmp_path / "elected.safetensors")
    again = recipe(home, signs=str(tmp_path / "elected.safetensors"))
    run(plan(again), tmp_path / "again")
    first, second = (tmp_path / n / "model.safetensors" for n in ("first", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_signs_are_an_input_of_the_provenance(home, tmp_path):
    run(plan(recipe(home)), tmp_path / "out")
    record = provenance.read(tmp_path / "out")
    assert [source["role"] for source in record["inputs"]] == ["base", "a", "b", "c", "signs"]
    assert record["recipe"]["signs"] == str(home / "oracle.safetensors")
    compared, problems = provenance.verify(tmp_path / "out")
    assert problems == []
    assert compared == 5 + 1


def test_changed_signs_are_found_by_verify(home, tmp_path):
    tensors = load_file(home / "oracle.safetensors")
    save_file(tensors, tmp_path / "mine.safetensors")
    run(plan(recipe(home, signs=str(tmp_path / "mine.safetensors"))), tmp_path / "out")
    tensors["norm.weight"] = -tensors["norm.weight"] + 1
    save_file(tensors, tmp_path / "mine.safetensors")
    assert "input signs changed" in str(provenance.verify(tmp_path / "out")[1][0])


def test_a_path_in_a_recipe_counts_from_its_file(home, tmp_path):
    (home / "by-signs.yml").write_text(
        "method: ties\nbase: base\nmodels: [a, b]\nsigns: oracle.safetensors\n"
    )
    made = plan(load_recipe(home / "by-signs.yml"))
    assert made.problems == []
    assert made.signs is not None
    assert made.kernel is None


def test_an_adapters_signs_are_those_of_its_full_model(family, tmp_path):
    alliage.signs(family / "topics-lora", out=tmp_path / "lora.safetensors")
    alliage.apply(family / "topics-lora", out=tmp_path / "full")
    out = tmp_path / "full.safetensors"
    alliage.signs(tmp_path / "full", base=family / "base", out=out)
    own, full = load_file(tmp_path / "lora.safetensors"), load_file(out)
    assert 0 < len(own) < len(full)
    for name, tensor in own.items():
        # The full model's weights are rounded: a difference may vanish, but never turn.
        assert not (tensor * full[name] < 0).any()
        assert (tensor == full[name]).float().mean() > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "average"}, "average elects no signs that a file could replace. Merge by ties"),
        ({"signs": "nowhere.safetensors"}, "nowhere.safetensors: does not exist"),
        ({"signs": ""}, "signs: String should have at least 1 character"),
    ],
)
def test_wrong_recipes_are_named(home, change, message):
    with pytest.raises(UsageError, match=message):
        plan(recipe(home, **change)).raise_problems()


def test_signs_of_other_shapes_are_named_all_at_once(home, tmp_path):
    tensors = load_file(home / "oracle.safetensors")
    tensors["layers.0.bias"] = tensors["layers.0.bias"][:7].clone()
    del tensors["norm.weight"]
    save_file(tensors, tmp_path / "other.safetensors")
    made = plan(recipe(home, signs=str(tmp_path / "other.safetensors")))
    found = [str(problem) for problem in made.problems]
    assert len(found) == 2
    assert "layers.0.bias: has the shape [7], expected the base's [123]." in found[0]
    assert "norm.weight: is not there, expected the base's [1]." in found[1]


def test_signs_of_another_base_are_refused(home, tmp_path):
    """Of b, as if c were what all were tuned from."""
    other = tmp_path / "other.safetensors"
    alliage.signs(home / "b", base=home / "c", out=other)
    made = plan(recipe(home, signs=str(other)))
    (problem,) = map(str, made.problems)
    assert f"{other}: counts from another base ({home / 'c'}) than {home / 'base'}." in problem
    assert f"alliage signs MODEL --base {home / 'base'} -o FILE." in problem
    with pytest.raises(AlliageError, match="counts from another base"):
        run(made, tmp_path / "out")


def test_signs_of_a_model_that_is_called_base(home, tmp_path):
    """As files of before named it, too: by its folder alone, behind the base."""
    shutil.copytree(home / "multitask", tmp_path / "base")
    out = tmp_path / "signs.safetensors"
    alliage.signs(tmp_path / "base", base=home / "base", out=out)
    assert load_file(out).keys() == SHAPES.keys()
    with safe_open(out, "pt") as file:
        inputs = json.loads(file.metadata()["alliage.inputs"])
    assert [source["role"] for source in inputs] == ["base", "model base"]
    assert plan(recipe(home, signs=str(out))).problems == []
    inputs[1]["role"] = "base"
    save_file(load_file(out), out, metadata={"alliage.inputs": json.dumps(inputs)})
    assert plan(recipe(home, signs=str(out))).problems == []


def test_the_base_may_lie_elsewhere(home, tmp_path):
    shutil.copytree(home / "base", tmp_path / "moved")
    assert plan(recipe(home, base=str(tmp_path / "moved"))).problems == []


@pytest.mark.parametrize("text", ["{", "[1]", '[{"role": "base"}]', "[]", "[" * 100_000])
def test_a_record_that_is_none_is_refused(home, tmp_path, text):
    tensors = load_file(home / "oracle.safetensors")
    save_file(tensors, tmp_path / "odd.safetensors", metadata={"alliage.inputs": text})
    (problem,) = plan(recipe(home, signs=str(tmp_path / "odd.safetensors"))).problems
    assert "is no record that Alliage wrote" in problem.what


def test_signs_that_are_all_zero_are_noted(home, tmp_path):
    tensors = load_file(home / "oracle.safetensors")
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    save_file(zeros, tmp_path / "zeros.safetensors")
    said = "are zero: no model changes the base"
    assert any(
        said in note for note in plan(recipe(home, signs=str(tmp_path / "zeros.safetensors"))).notes
    )
    zeros["norm.weight"][-1] = -1
    save_file(zeros, tmp_path / "one.safetensors")
    assert not any(
        said in note for note in plan(recipe(home, signs=str(tmp_path / "one.safetensors"))).notes
    )


def test_weights_are_no_signs(home):
    made = plan(recipe(home, signs=str(home / "a" / "model.safetensors")))
    assert "F32[123] is no sign: expected int8." in str(made.problems[0])


def test_slices_take_no_signs(home):
    slices = [{"models": [{"model": str(home / "a"), "layers": [0, 1]}]}]
    content = {"method": "ties", "base": str(home / "base"), "slices": slices}
    content |= {"signs": str(home / "oracle.safetensors")}
    with pytest.raises(UsageError, match="slices take none"):
        plan(parse_recipe(content))


def test_bad_models_leave_no_file(home, tmp_path):
    tensors = load_file(home / "a" / "model.safetensors")
    tensors["layers.0.bias"][3] = float("nan")
    store(tmp_path / "flawed", tensors)
    out = tmp_path / "signs.safetensors"
    with pytest.raises(AlliageError, match=r"layers\.0\.bias: holds NaN or infinity"):
        alliage.signs(tmp_path / "flawed", base=home / "base", out=out)
    with pytest.raises(UsageError, match="no base given"):
        alliage.signs(home / "a", out=out)
    with pytest.raises(UsageError, match=r"Name it NAME\.safetensors"):
        alliage.signs(home / "a", base=home / "base", out=tmp_path / "signs")
    assert [item.name for item in tmp_path.iterdir()] == ["flawed"]
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        alliage.signs(home / "a", base=home / "base", out=out)
    assert out.read_bytes() == b"mine"
