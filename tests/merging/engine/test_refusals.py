"""Merges that are refused: every problem at once, by name, and nothing is left behind."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage.errors import AlliageError, UsageError
from alliage.merging import parse_recipe, plan, run
from tests.conftest import bert_config
from tests.merging.engine.test_run import recipe


def spoiled(family, tmp_path, name, value):
    shutil.copytree(family / name, tmp_path / name)
    tensors = load_file(family / name / "model.safetensors")
    for key in ("encoder.layer.0.output.dense.weight", "pooler.dense.bias"):
        tensor = tensors[("" if name == "base" else "bert.") + key]
        tensor.view(-1)[3] = value
    save_file(tensors, tmp_path / name / "model.safetensors")
    return str(tmp_path / name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("method", ["ties", "average"])
def test_nan_and_infinity_are_named_and_leave_nothing(family, tmp_path, method, value):
    models = [str(family / "topics"), spoiled(family, tmp_path, "sentiment", value)]
    made = plan(recipe(family, method, models))
    with pytest.raises(AlliageError, match="holds NaN or infinity") as caught:
        run(made, tmp_path / "out")
    assert len(caught.value.problems) == 2
    assert "bert.pooler.dense.bias" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sentiment"]


def test_nan_in_the_base_is_the_bases_fault(family, tmp_path):
    base = spoiled(family, tmp_path, "base", float("nan"))
    chosen = recipe(family).model_copy(update={"base": base})
    with pytest.raises(AlliageError) as caught:
        run(plan(chosen), tmp_path / "out")
    assert any(
        f"{base}/model.safetensors: pooler.dense.bias" in str(p) for p in caught.value.problems
    )


def test_flaws_in_what_is_only_copied_or_converted(family, tmp_path):
    """An adapter leaves most of the base as it is; that part is looked at too."""
    shutil.copytree(family / "base", tmp_path / "base")
    tensors = load_file(family / "base" / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][1, 1] = 1e6
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    base, lora = str(tmp_path / "base"), [str(family / "sentiment-lora")]
    chosen = parse_recipe({"method": "ties", "base": base, "models": lora, "dtype": "float16"})
    with pytest.raises(AlliageError, match=r"word_embeddings\.weight: some merged values"):
        run(plan(chosen), tmp_path / "out")
    tensors["embeddings.word_embeddings.weight"][1, 1] = float("nan")
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    chosen = parse_recipe({"method": "ties", "base": base, "models": lora})
    with pytest.raises(AlliageError, match=r"word_embeddings\.weight: holds NaN"):
        run(plan(chosen), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_a_missing_base_does_not_hide_missing_models(family, tmp_path):
    content = {"method": "ties", "base": "./no-base", "models": ["./no-model"]}
    made = plan(parse_recipe(content), out=family / "base")
    assert [problem.where for problem in made.problems] == [
        str(family / "base"), "./no-base", "./no-model",
    ]  # fmt: skip
    with pytest.raises(UsageError):
        run(made, tmp_path / "out")


def test_values_that_do_not_fit_the_output_type(family, tmp_path):
    chosen = recipe(family, "task_arithmetic", parameters={"scale": 1e30}, dtype="float16")
    with pytest.raises(AlliageError, match="no finite F16"):
        run(plan(chosen), tmp_path / "out")


def test_all_misfits_of_all_models_at_once(family, tmp_path):
    from transformers import BertModel

    BertModel(bert_config(hidden_size=24)).save_pretrained(tmp_path / "wider")
    (tmp_path / "cut").mkdir()
    whole = (family / "sentiment" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[:-100])
    models = [str(tmp_path / "wider"), str(tmp_path / "cut"), str(tmp_path / "nowhere")]
    made = plan(recipe(family, models=models))
    messages = "\n".join(map(str, made.problems))
    assert "expected the base's shape" in messages
    assert "tensors are cut off, the first" in messages
    assert "nowhere: does not exist" in messages
    with pytest.raises(AlliageError):
        run(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapters_that_do_not_fit_together(family, tmp_path):
    chosen = recipe(family, "factor_average", ["sentiment-lora", "topics"])
    assert "is no LoRA adapter" in str(plan(chosen).problems[0])
    shutil.copytree(family / "topics-lora", tmp_path / "other")
    settings = json.loads((tmp_path / "other" / "adapter_config.json").read_text())
    settings["r"] = 3
    (tmp_path / "other" / "adapter_config.json").write_text(json.dumps(settings))
    tensors = load_file(tmp_path / "other" / "adapter_model.safetensors")
    longer = {
        name: torch.nn.functional.pad(tensor, (0, 0, 0, 1) if "lora_A" in name else (0, 1))
        if "lora_" in name
        else tensor
        for name, tensor in tensors.items()
    }
    save_file(longer, tmp_path / "other" / "adapter_model.safetensors")
    models = ["sentiment-lora", str(tmp_path / "other")]
    for method in ("factor_average", "robust_merge"):
        problems = plan(recipe(family, method, models)).problems
        assert len(problems) == 4
        assert "has rank 3, sentiment-lora has 2" in str(problems[0])
        assert "lora_concat" in str(problems[0])
    assert not plan(recipe(family, "lora_concat", models)).problems


def test_an_existing_output_is_left_alone(family, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        run(plan(recipe(family)), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"


def test_a_delta_method_needs_a_base(family):
    chosen = parse_recipe({"method": "ties", "models": [str(family / "sentiment")]})
    made = plan(chosen)
    with pytest.raises(UsageError, match="needs the models' common base"):
        made.raise_problems()


def test_no_base_does_not_hide_missing_models():
    made = plan(parse_recipe({"method": "ties", "models": ["./no-model", "./nor-this"]}))
    assert [problem.where for problem in made.problems] == ["base", "./no-model", "./nor-this"]
    with pytest.raises(UsageError):
        made.raise_problems()


def test_what_is_missing_twice_is_said_once():
    content = {"method": "ties", "base": "./no-base", "models": ["./no-model", "./no-model"]}
    made = plan(parse_recipe(content))
    places = ["./no-base", "./no-model"]
    assert [problem.where for problem in made.problems] == places
    assert [text.partition(":")[0] for text in made.to_dict()["problems"]] == places
    with pytest.raises(UsageError) as caught:
        raise UsageError([*made.problems, *made.problems])
    assert [problem.where for problem in caught.value.problems] == places


@pytest.mark.parametrize("inner", ["out", "deep/er/out"])
def test_an_output_inside_an_input_is_refused(family, inner):
    for folder in ("base", "sentiment"):
        out = family / folder / inner
        (problem,) = plan(recipe(family), out=out).problems
        assert str(problem).startswith(f"{out}: lies inside the input {family / folder}")


def test_an_output_without_a_name_is_refused(family):
    (problem,) = plan(recipe(family), out="").problems
    assert str(problem) == "out: is empty: no output folder. Name one."
