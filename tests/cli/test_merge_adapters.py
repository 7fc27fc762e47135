import json
import shutil

import torch
from safetensors.torch import load_file, save_file

LORA = "sentiment-lora topics-lora"


def test_a_merged_adapter_is_applied_like_any_other(alliage):
    done = alliage(
        f"merge {LORA} --method knots --set rule=task_arithmetic --set scale=1 -o merged"
    )
    assert done.returncode == 0, done.stderr
    assert "2 models merged by knots" in done.stdout
    assert alliage("verify merged").returncode == 0
    assert alliage("apply merged -o applied").returncode == 0
    dense = alliage(f"merge {LORA} --method task_arithmetic --base base --set scale=1 -o dense")
    assert dense.returncode == 0, dense.stderr
    found, expected = (load_file(f"{name}/model.safetensors") for name in ("applied", "dense"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_rules_parameters_are_set_beside_it(alliage):
    line = (
        f"merge {LORA} --method core_space --set rule=ties --set density=0.3,0.5 --dry-run --json"
    )
    arguments = json.loads(alliage(line).stdout)["plan"]["arguments"]
    assert arguments["density"] == [0.3, 0.5]
    wrong = alliage(f"merge {LORA} --method core_space --set rule=ties --set densty=0.3 --dry-run")
    assert wrong.returncode == 2
    assert "core_space has no parameter 'densty'. Did you mean 'density'?" in wrong.stderr
    wrong = alliage(f"merge {LORA} --method knots --set rule=tise --dry-run")
    assert wrong.returncode == 2
    assert "must name a method of blocks or tensors" in wrong.stderr


def test_scales_make_scales(alliage, workspace):
    from peft import IA3Config, get_peft_model
    from transformers import BertModel

    for number in range(2):
        config = IA3Config(target_modules=["key", "value"], feedforward_modules=[])
        adapted = get_peft_model(BertModel.from_pretrained("base"), config)
        for name, parameter in adapted.named_parameters():
            if "ia3_l" in name:
                torch.nn.init.constant_(parameter, 1.0 + number)
        adapted.save_pretrained(f"scales-{number}")
    line = "merge scales-0 scales-1 --method average --base base"
    assert alliage(f"{line} --adapter -o merged").returncode == 0
    merged = load_file("merged/adapter_model.safetensors")
    assert all(torch.equal(tensor, torch.full_like(tensor, 1.5)) for tensor in merged.values())
    assert alliage("verify merged").returncode == 0
    assert alliage("apply merged -o applied").returncode == 0
    assert alliage(f"{line} -o full").returncode == 0
    assert (workspace / "full" / "config.json").is_file()
    (workspace / "recipe.yml").write_text("method: ties\nmodels: [a]\n")
    clash = alliage("merge recipe.yml --adapter -o out")
    assert clash.returncode == 2
    assert "--adapter" in clash.stderr


def store_scales(folder, base, value):
    folder.mkdir()
    settings = {
        "peft_type": "IA3", "target_modules": ["key"], "feedforward_modules": [],
        "base_model_name_or_path": base,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.encoder.layer.0.attention.self.key.ia3_l"
    base_weight = load_file("base/model.safetensors")["encoder.layer.0.attention.self.key.weight"]
    save_file(
        {name: torch.full((len(base_weight), 1), value)}, folder / "adapter_model.safetensors"
    )


def test_adapters_that_name_one_base_need_no_other(alliage, workspace):
    for number in range(2):
        store_scales(workspace / f"scales-{number}", "base", 1.5 + number)
    for models in ("scales-0 scales-1", LORA, "scales-0 sentiment-lora"):
        line = f"merge {models} --method ties --set density=1"
        for more in ("-o named", "--base base -o given"):
            done = alliage(f"{line} {more}")
            assert done.returncode == 0, done.stderr
        named, given = (workspace / out / "model.safetensors" for out in ("named", "given"))
        assert named.read_bytes() == given.read_bytes()
        assert alliage("verify named").returncode == 0
        for out in ("named", "given"):
            shutil.rmtree(workspace / out)


def test_adapters_of_two_bases_or_beside_a_full_model_need_a_base(alliage, workspace):
    shutil.copytree(workspace / "base", workspace / "other")
    store_scales(workspace / "scales", "base", 1.5)
    store_scales(workspace / "others", "other", 1.5)
    for models in ("scales others", "scales sentiment", "sentiment topics"):
        done = alliage(f"merge {models} --method ties -o merged")
        assert done.returncode == 2
        said = "base: ties needs the models' common base. Give it: base: in a recipe, --base on the"
        assert said in done.stderr


def test_a_rule_that_merges_two_is_named_where_there_are_three(alliage):
    done = alliage(f"merge {LORA} sentiment-lora --method core_space --set rule=nuslerp -o merged")
    assert done.returncode == 2
    assert "models: rule nuslerp merges 2 models, found 3." in done.stderr
