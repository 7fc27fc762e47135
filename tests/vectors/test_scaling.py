import pytest
import torch

import alliage
from alliage import vectors
from alliage.errors import AlliageError
from tests.conftest import bert_config
from tests.vectors.test_low_rank import gpt2


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_delta_is_what_peft_merges(tmp_path, architecture):
    from peft import IA3Config, get_peft_model
    from transformers import BertModel

    torch.manual_seed(0)
    if architecture == "bert":
        model = BertModel(bert_config())
        config = IA3Config(
            target_modules=["key", "value", "intermediate.dense"],
            feedforward_modules=["intermediate.dense"],
        )
    else:
        model = gpt2()
        config = IA3Config(
            target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"],
            fan_in_fan_out=True,
        )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases too
    model.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, config)
    for key, parameter in adapted.named_parameters():
        if "ia3_l" in key:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")

    vector = vectors.open(tmp_path / "adapter", tmp_path / "base")
    with alliage.open(tmp_path / "base") as base, alliage.open(tmp_path / "merged") as merged:
        for name in base.specs():
            expected = merged.read(name) - base.read(name)
            if name in vector.shapes:
                torch.testing.assert_close(vector.delta(name), expected, rtol=1e-5, atol=1e-6)
                half = expected.numel() // 2
                block = vector.block(name, half, expected.numel())
                torch.testing.assert_close(block, expected.reshape(-1)[half:], rtol=1e-5, atol=1e-6)
            else:
                assert expected.abs().max() == 0, name
        first = vector.modules[0]
        stored = adapted_scale(tmp_path / "adapter", first)
        assert torch.equal(vector.scales(first), stored)


def adapted_scale(folder, module):
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    return next(t.reshape(-1) for name, t in tensors.items() if f".{module}." in f".{name}")


def test_an_adapter_for_another_base(tmp_path, family):
    from peft import IA3Config, get_peft_model
    from transformers import BertModel

    model = BertModel(bert_config(hidden_size=24))
    config = IA3Config(target_modules=["key"], feedforward_modules=[])
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(AlliageError, match="does not fit the base's"):
        vectors.open(tmp_path / "adapter", family / "base")
