"""Queries, keys and values inside one matrix, held to the models' own forward pass."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.linalg import subspace_angles

import alliage
from alliage.errors import UsageError
from alliage.geometry.surveying.fused import fused_outputs
from tests.conftest import shift
from tests.geometry.surveying.test_comparing import gpt2_pair, left_space


def test_orders_by_hand():
    gpt2 = fused_outputs({"model_type": "gpt2"}, "transformer.h.0.attn.c_attn.weight", 6)
    assert gpt2 == {"query": [0, 1], "key": [2, 3], "value": [4, 5]}
    neox = {"model_type": "gpt_neox", "num_attention_heads": 2}
    by_heads = fused_outputs(neox, "gpt_neox.layers.0.attention.query_key_value.bias", 12)
    assert by_heads == {"query": [0, 1, 6, 7], "key": [2, 3, 8, 9], "value": [4, 5, 10, 11]}
    phi3 = {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2}
    grouped = fused_outputs(phi3, "model.layers.0.self_attn.qkv_proj.weight", 8)
    assert grouped == {"query": [0, 1, 2, 3], "key": [4, 5], "value": [6, 7]}


def test_orders_that_are_not_known():
    name = "transformer.h.0.self_attention.query_key_value.weight"
    assert fused_outputs({"model_type": "falcon", "num_attention_heads": 2}, name, 12) is None
    assert fused_outputs(None, name, 12) is None
    assert fused_outputs({"model_type": "gpt_neox"}, name, 12) is None
    odd = {"model_type": "gpt_neox", "num_attention_heads": 5}
    assert fused_outputs(odd, name, 12) is None
    assert fused_outputs({"model_type": "gpt2"}, "h.0.crossattention.c_attn.weight", 8) is None


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "bloom", "phi3", "modernbert"])
def test_parts_are_what_the_model_computes_them_from(model_type):
    """Values alone change what comes out where one position attends to itself only."""
    from transformers import AutoConfig, AutoModel

    sizes = {
        "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 20,
        "intermediate_size": 16, "num_key_value_heads": 2, "pad_token_id": 0, "n_embd": 16,
        "n_head": 4, "n_layer": 1, "bos_token_id": 0, "eos_token_id": 0, "cls_token_id": 0,
        "sep_token_id": 0, "attn_implementation": "eager",
    }  # fmt: skip
    if model_type in ("gpt2", "bloom"):
        del sizes["num_key_value_heads"]
    config = AutoConfig.for_model(model_type, **sizes)
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    name, weight = next(
        (n, p) for n, p in model.named_parameters()
        if n.endswith(("c_attn.weight", "query_key_value.weight", "qkv_proj.weight", "Wqkv.weight"))
    )  # fmt: skip
    conv = model_type == "gpt2"
    outputs = weight.shape[1] if conv else weight.shape[0]
    order = fused_outputs(config.to_dict(), name, outputs)
    assert sorted(itertools.chain(*order.values())) == list(range(outputs))

    def answer(part, tokens):
        kept = weight.detach().clone()
        with torch.no_grad():
            rows = weight.mT if conv else weight
            rows[order[part]] += 1.0
            found = model(input_ids=torch.tensor([tokens])).last_hidden_state
            weight.copy_(kept)
            return found

    plain = {n: model(input_ids=torch.tensor([list(range(1, n + 1))])).last_hidden_state
             for n in (1, 5)}  # fmt: skip
    for part in order:
        # One token: its attention is all on itself, whatever queries and keys are.
        alone = answer(part, [1])
        assert torch.allclose(alone, plain[1], atol=1e-5) == (part != "value"), part
        assert not torch.allclose(answer(part, [1, 2, 3, 4, 5]), plain[5], atol=1e-5)


def test_queries_and_values_of_gpt2_are_measured_apart(tmp_path):
    base, *tuned = gpt2_pair(tmp_path)
    models = [tmp_path / "tuned-1", tmp_path / "tuned-2"]
    found = alliage.compare(tmp_path / "base", models, rank=3, modules="q,v")
    assert found.data["module"].values.tolist() == [
        "transformer.h.0.attn.c_attn.query", "transformer.h.0.attn.c_attn.value",
    ]  # fmt: skip
    assert found.data["kind"].values.tolist() == ["query", "value"]
    name = "transformer.h.0.attn.c_attn"
    deltas = [
        {part: t[f"{name}.{part}"].double() - base[f"{name}.{part}"] for part in ("weight", "bias")}
        for t in tuned
    ]
    for module, part in ((0, slice(0, 8)), (1, slice(16, 24))):
        weights = [d["weight"][:, part].numpy().T for d in deltas]
        biases = [d["bias"][part].numpy() for d in deltas]
        l2 = np.hypot(
            np.linalg.norm(weights[0] - weights[1]), np.linalg.norm(biases[0] - biases[1])
        )
        geodesic = np.linalg.norm(subspace_angles(*(left_space(w, 3) for w in weights)))
        pair = found.data.isel(task=0, other=1, module=module)
        assert float(pair["l2"]) == pytest.approx(l2, rel=1e-5)
        assert float(pair["geodesic"]) == pytest.approx(geodesic, rel=1e-5)
    whole = alliage.compare(tmp_path / "base", models, ["l2"], modules="qkv")
    assert whole.data["module"].values.tolist() == [name]
    layers = alliage.compare(tmp_path / "base", models, ["l2"], by="layer", modules="q,k,v")
    assert float(layers["l2"][0, 1, 0]) == pytest.approx(float(whole["l2"][0, 1, 0]), rel=1e-9)


def test_adapters_of_fused_projections_are_sliced_by_rows_of_b(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    gpt2_pair(tmp_path)
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=2, lora_alpha=2, target_modules=["c_attn"], fan_in_fan_out=True,
            init_lora_weights=False,
        )  # fmt: skip
        adapted = get_peft_model(GPT2LMHeadModel.from_pretrained(tmp_path / "base"), config)
        adapted.save_pretrained(tmp_path / f"lora-{seed}")
        folders.append(tmp_path / f"lora-{seed}")
    found = alliage.compare(
        tmp_path / "base", folders, ["l2", "geodesic", "core_energy"], modules="v"
    )
    stem = "base_model.model.transformer.h.0.attn.c_attn.lora"
    values = []
    for folder in folders:
        factors = load_file(folder / "adapter_model.safetensors")
        values.append((factors[f"{stem}_B.weight"][16:24] @ factors[f"{stem}_A.weight"]).numpy())
    pair = found.data.isel(task=0, other=1, module=0)
    assert float(pair["l2"]) == pytest.approx(np.linalg.norm(values[0] - values[1]), rel=1e-5)
    geodesic = np.linalg.norm(subspace_angles(*(left_space(v, 2) for v in values)))
    assert float(pair["geodesic"]) == pytest.approx(geodesic, rel=1e-5)


def test_an_order_that_is_not_known_is_refused_by_name(tmp_path):
    from transformers import FalconConfig, FalconModel

    config = FalconConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=20)
    torch.manual_seed(0)
    model = FalconModel(config)
    model.save_pretrained(tmp_path / "base")
    for seed in (1, 2):
        shift(model, seed)
        model.save_pretrained(tmp_path / f"tuned-{seed}")
    models = [tmp_path / "tuned-1", tmp_path / "tuned-2"]
    with pytest.raises(UsageError, match=r"query_key_value.*'falcon'.*Name the kind qkv"):
        alliage.compare(tmp_path / "base", models, ["l2"], modules="q")
    whole = alliage.compare(tmp_path / "base", models, ["l2"], modules="qkv")
    assert whole.data.sizes["module"] == 1
