"""What a merge by factors will write, and what is refused before anything is read."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from alliage.errors import UsageError
from alliage.merging import parse_recipe, plan, run
from tests.merging.engine.test_factors import CASES, tune
from tests.vectors.test_low_rank import bert


def test_a_plan_says_what_will_be_written(tmp_path):
    tune(bert(), tmp_path, bert, CASES["other modules"][1])
    models = [str(tmp_path / name) for name in "012"]
    made = plan(parse_recipe({"method": "lora_concat", "models": models}), threads=2)
    content = made.to_dict()
    run(made, tmp_path / "out")
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {each["name"]: each["shape"] for each in content["tensors"]} == {
        name: list(tensor.shape) for name, tensor in written.items()
    }
    assert content["tensors_merged"] == len(written)
    assert content["elements_merged"] == sum(tensor.numel() for tensor in written.values())
    assert content["bytes_to_write"] == (tmp_path / "out/adapter_model.safetensors").stat().st_size
    # rank 3, 32 outputs and 16 inputs: 3·48 numbers in float64, five times, of three and the result
    assert content["working_memory"] == 2 * 8 * 5 * 4 * 3 * 48
    small = plan(parse_recipe({"method": "lora_concat", "models": models}), threads=2, memory=30000)
    assert (small.workers, small.problems) == (1, [])
    assert "are enough for 1 of 2 threads" in small.notes[0]
    least = plan(parse_recipe({"method": "lora_concat", "models": models}), memory=1000)
    assert "holds the largest module of all adapters" in least.notes[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "use_dora is set, and DoRA's update has full rank"),
        ({"lora_bias": True}, "lora_bias is set, and a bias on B adds a term"),
        ({"init_lora_weights": "pissa"}, "which changed the base's weights"),
        ({"init_lora_weights": "olora"}, "which changed the base's weights"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(family, tmp_path, changes, said):
    shutil.copytree(family / "topics-lora", tmp_path / "other")
    file = tmp_path / "other" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    models = [str(family / "sentiment-lora"), str(tmp_path / "other")]
    made = plan(parse_recipe({"method": "lora_concat", "models": models}))
    assert said in "\n".join(map(str, made.problems))


def test_rules_that_do_not_fit(family):
    models = [str(family / f"{name}-lora") for name in ("sentiment", "topics")]

    def problems(**parameters):
        content = {"method": "knots", "models": [*models, models[0]], "parameters": parameters}
        try:
            return "\n".join(map(str, plan(parse_recipe(content)).problems))
        except UsageError as error:
            return str(error)

    assert "must name a method of blocks or tensors (Did you mean 'ties'" in problems(rule="tiess")
    said = problems(rule="fisher")
    assert "rule: must name a method of blocks or tensors (fisher needs statistics of" in said
    assert "(tall_masks keeps masks beside what it merges), got 't" in problems(rule="tall_masks")
    assert "(knots merges LoRA factors itself)" in problems(rule="knots")
    assert "has no parameter 'densty'. Did you mean 'density'?" in problems(densty=0.2)
    assert "has no parameter 'density'" in problems(rule="average", density=0.2)
    assert problems(rule="ties", trim="tensor", density=[0.2, 0.4]) == ""
    assert "is one vector with" in problems(rule="ties", density=[0.2, 0.4])
    assert "rule is one method for all tensors" in problems(rule=["ties", "average"])
    assert "merges 2 models, found 3" in problems(rule="slerp", t=0.5)
    content = {
        "method": "core_space", "parameters": {"rule": "average"},
        "models": [
            {"model": models[0], "parameters": {"weight": 1}},
            {"model": models[1], "parameters": {"weight": -1}},
        ],
    }  # fmt: skip
    assert "sum to zero" in str(plan(parse_recipe(content)).problems[0])
