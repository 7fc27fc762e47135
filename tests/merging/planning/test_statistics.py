"""Statistics are of these models, of the right kind, and part of what a merge is made of."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage.checkpoints import provenance
from alliage.checkpoints.digests import sha256
from alliage.checkpoints.statistics import Origin, describe_model, written
from alliage.errors import AlliageError, UsageError
from alliage.merging import load_recipe, parse_recipe, plan, run
from tests.merging.statistics import save
from tests.merging.test_odd_inputs import recipe, store, three


@pytest.fixture
def home(tmp_path):
    """Models a and b with Fisher information."""
    tensors = three()
    for number, name in enumerate("ab"):
        store(tmp_path / name, {"layers.0.weight": tensors[number]})
        save(tmp_path / name, "fisher", {"layers.0.weight": torch.full((5, 7), 1.0 + 2 * number)})
    return tmp_path


def said(chosen):
    made = plan(chosen)
    return [str(problem) for problem in made.problems]


def merge(home):
    return recipe(home, "fisher", base=None)


def test_where_there_are_none_it_says_how_to_collect_them(home):
    for name in "ab":
        (home / name / "fisher.safetensors").unlink()
    problems = said(merge(home))
    assert len(problems) == 2
    assert problems[0].startswith(f"{home}/a: fisher needs its statistics, and there are none in")
    written = f"{home}/a/fisher.safetensors"  # where the merge finds them
    assert f"alliage statistics fisher {home}/a --task TASK -o {written}" in problems[0]
    assert "statistics: FILE" in problems[0]


def test_statistics_of_all_models_are_named_by_the_recipe(home):
    problems = said(recipe(home, "regmean_plus_plus", base=None))
    assert "regmean++ MODEL... --task TASK... -o DIR" in problems[0]
    assert "in the recipe: statistics: FILE" in problems[0]


def test_other_weights_are_refused(home):
    tensors = load_file(home / "b" / "model.safetensors")
    tensors["layers.0.weight"][0, 0] += 1
    save_file(tensors, home / "b" / "model.safetensors")
    (problem,) = said(merge(home))
    assert problem.startswith(f"{home}/b/fisher.safetensors: was collected with other weights")
    assert plan(merge(home)).errors[0].exit_code == 2


def test_another_kind_is_refused(home):
    shutil.move(home / "a" / "fisher.safetensors", home / "a" / "regmean.safetensors")
    save(home / "b", "regmean", {"layers.0.weight": torch.eye(7)})
    (problem,) = said(recipe(home, "regmean", base=None))
    assert "holds fisher statistics, expected regmean" in problem
    assert "alliage statistics regmean" in problem


def test_what_is_no_file_of_statistics_is_refused(home):
    shutil.copy(home / "a" / "model.safetensors", home / "a" / "fisher.safetensors")
    (problem,) = said(merge(home))
    assert "holds no statistics that Alliage wrote: KeyError('kind')" in problem


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("models", "[1]"),
        ("models", '[{"ref": 1, "files": []}]'),
        ("models", '[{"ref": "a", "files": [{"file": "a.bin", "sha256": 5}]}]'),
        ("models", "[" * 100_000),
        ("merged_with", "[5]"),
        ("parameters", "7"),
        ("examples", "many"),
        ("kind", "gradient"),
    ],
)
def test_what_it_says_of_itself_is_not_believed(home, key, text):
    place = home / "a" / "fisher.safetensors"
    with alliage.open(place) as file:
        metadata = file.sources[0].metadata
    save_file(load_file(place), place, metadata | {key: text})
    (problem,) = said(merge(home))
    assert problem.startswith(f"{place}: holds no statistics that Alliage wrote")


def test_other_shapes_and_empty_files_are_refused(home):
    (home / "a" / "fisher.safetensors").unlink()
    save(home / "a", "fisher", {"layers.0.weight": torch.ones(7, 5)})
    (problem,) = said(merge(home))
    assert problem.startswith(f"{home}/a/fisher.safetensors: layers.0.weight: has the shape [7, 5]")
    for name in "ab":
        (home / name / "fisher.safetensors").unlink()
        save(home / name, "fisher", {"layers.9.weight": torch.ones(5, 7)})
    (problem,) = said(merge(home))
    assert "holds nothing of the tensors that are merged" in problem


def test_information_that_is_nan_is_named(home):
    (home / "a" / "fisher.safetensors").unlink()
    save(home / "a", "fisher", {"layers.0.weight": torch.full((5, 7), float("nan"))})
    with pytest.raises(AlliageError, match=r"a/fisher\.safetensors: layers.0.weight: holds NaN"):
        run(plan(merge(home)), home / "out")
    assert not (home / "out").exists()


def test_a_recipe_names_files_relative_to_itself(home):
    shutil.move(home / "a" / "fisher.safetensors", home / "known.safetensors")
    (home / "merge.yml").write_text(
        "method: fisher\nmodels:\n  - {model: a, statistics: known.safetensors}\n  - b\n"
    )
    run(plan(load_recipe(home / "merge.yml")), home / "out")
    a, b = (load_file(home / name / "model.safetensors")["layers.0.weight"] for name in "ab")
    merged = load_file(home / "out" / "model.safetensors")["layers.0.weight"]
    torch.testing.assert_close(merged, (a + 3 * b) / 4)


def test_methods_without_statistics_take_none():
    content = {"method": "average", "models": [{"model": "a", "statistics": "f.safetensors"}]}
    with pytest.raises(UsageError, match=r"models\[0\]\.statistics: average needs no statistics"):
        parse_recipe(content).settings()


def test_they_are_inputs_of_the_output_which_verifies(home):
    run(plan(merge(home)), home / "out")
    record = json.loads((home / "out" / provenance.FILE).read_text())
    roles = [source["role"] for source in record["inputs"]]
    assert roles == ["a", "b", "statistics of a", "statistics of b"]
    assert provenance.verify(home / "out")[1] == []
    (home / "a" / "fisher.safetensors").unlink()
    (problem,) = provenance.verify(home / "out")[1]
    assert problem.where == str(home / "a" / "fisher.safetensors")


def test_in_a_models_folder_they_are_no_weights(home, tmp_path):
    alliage.merge("average", models=[home / "a", home / "b"], out=tmp_path / "mean")
    save(tmp_path / "mean", "fisher", {"layers.0.weight": torch.ones(5, 7)})
    assert provenance.verify(tmp_path / "mean")[1] == []
    (tmp_path / "mean" / "model.safetensors").rename(tmp_path / "mean" / "other.safetensors")
    with alliage.open(tmp_path / "mean") as checkpoint:
        assert [file.name for file in checkpoint.weight_files] == ["other.safetensors"]


def test_an_interrupted_merge_does_not_go_on_with_other_statistics(home):
    """What the journal compares with is all that is read."""
    made = plan(merge(home))
    files = {file for checkpoint in made.checkpoints for file in checkpoint.versions}
    assert {str(home / name / "fisher.safetensors") for name in "ab"} <= files
    assert made.bytes_to_read >= 2 * 2 * 4 * 35


def test_prefixed_names_and_adapters_find_theirs(family, tmp_path):
    """A model's statistics have its own names; an adapter's, those of its base."""
    for name in ("sentiment", "sentiment-lora"):
        shutil.copytree(family / name, tmp_path / name)
    name = "encoder.layer.0.attention.self.query.weight"
    own = torch.full((16, 16), 3.0)
    save(tmp_path / "sentiment", "fisher", {f"bert.{name}": own})
    adapter = tmp_path / "sentiment-lora"
    with alliage.open(adapter) as opened, alliage.open(family / "base") as base:
        origin = Origin("fisher", "mood", "train", 1, describe_model(opened, base))
        with written(adapter / "fisher.safetensors", {name: (16, 16)}, origin) as writer:
            writer.write(name, 0, memoryview(torch.ones(256).numpy().data).cast("B"))
    content = {"method": "fisher", "base": str(family / "base")}
    models = [str(tmp_path / "sentiment"), str(adapter)]
    run(plan(parse_recipe(content | {"models": models})), tmp_path / "out")
    alliage.apply(family / "sentiment-lora", out=tmp_path / "applied")
    first = load_file(family / "sentiment" / "model.safetensors")[f"bert.{name}"]
    applied = load_file(next((tmp_path / "applied").glob("*-00001*")))
    merged = load_file(tmp_path / "out" / "model.safetensors")[name]
    torch.testing.assert_close(merged, (3 * first + applied[name]) / 4, rtol=1e-5, atol=1e-6)


def test_each_weight_file_is_hashed_once_and_nothing_else_is(family, tmp_path, monkeypatch):
    """Two adapters have one base, whose digest each one's statistics hold."""
    name, adapters = "encoder.layer.0.attention.self.query.weight", []
    for task in ("sentiment", "topics"):
        adapters.append(shutil.copytree(family / f"{task}-lora", tmp_path / task))
        with alliage.open(adapters[-1]) as opened, alliage.open(family / "base") as base:
            origin = Origin("fisher", "mood", "train", 1, describe_model(opened, base))
        with written(adapters[-1] / "fisher.safetensors", {name: (16, 16)}, origin) as writer:
            writer.write(name, 0, memoryview(torch.ones(256).numpy().data).cast("B"))
    hashed = []
    monkeypatch.setattr(provenance, "sha256", lambda path: hashed.append(path) or sha256(path))
    content = {"method": "fisher", "base": str(family / "base"), "models": list(map(str, adapters))}
    assert plan(parse_recipe(content)).problems == []
    expected = [adapter / "adapter_model.safetensors" for adapter in adapters]
    assert sorted(hashed) == sorted([family / "base" / "model.safetensors", *expected])
