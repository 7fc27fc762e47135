"""The oracle is PEFT: merging an adapter into its base changes the weights by our delta."""

import pytest
import torch

import alliage
from alliage import vectors
from alliage.errors import AlliageError
from tests.conftest import bert_config


def peft_pair(tmp_path, model, reload, **settings):
    """Save a base and a random adapter; return what PEFT's own merge changes, by file name."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(**settings))
    for key, parameter in adapted.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    changed = {}
    with alliage.open(tmp_path / "base") as base, alliage.open(tmp_path / "merged") as merged:
        for name in base.specs():
            difference = merged.read(name).double() - base.read(name).double()
            if difference.abs().max() > 0:
                changed[name] = difference
    return changed


def bert(**changes):
    from transformers import BertModel

    return BertModel(bert_config(**changes))


def vit():
    from transformers import ViTConfig, ViTModel

    return ViTModel(
        ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            image_size=8, patch_size=4, num_channels=1,
        )
    )  # fmt: skip


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=30, bos_token_id=0, eos_token_id=0)
    )


CASES = {
    "bert": (bert, {"r": 3, "lora_alpha": 6, "target_modules": ["query", "value"]}),
    "rslora": (bert, {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["key"]}),
    "patterns": (
        bert,
        {
            "r": 2, "lora_alpha": 6, "target_modules": ["query", "value", "dense"],
            "rank_pattern": {"query": 5}, "alpha_pattern": {"layer.1.attention.self.value": 9},
        },
    ),
    "embedding": (bert, {"r": 2, "target_modules": ["word_embeddings", "query"]}),
    "square embedding": (
        lambda: bert(vocab_size=16),
        {"r": 2, "target_modules": ["word_embeddings"]},
    ),
    "conv1d": (gpt2, {"r": 2, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "renamed in memory": (vit, {"r": 2, "target_modules": ["q_proj", "v_proj", "fc1"]}),
    "convolution": (vit, {"r": 2, "target_modules": ["projection"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_delta_is_what_peft_merges(tmp_path, case):
    make, settings = CASES[case]
    torch.manual_seed(0)
    changed = peft_pair(tmp_path, make(), make, **settings)
    vector = vectors.open(tmp_path / "adapter", tmp_path / "base")
    assert set(vector.shapes) == set(changed)
    for name, expected in changed.items():
        found = vector.delta(name)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6)


@pytest.fixture(scope="module")
def pair(family):
    return tuple(vectors.open(family / f"{name}-lora") for name in ("sentiment", "topics"))


def test_a_block_does_not_depend_on_where_it_is_cut(tmp_path):
    from transformers import BertModel

    torch.manual_seed(0)
    make = lambda: BertModel(bert_config(hidden_size=96, intermediate_size=200))  # noqa: E731
    peft_pair(tmp_path, make(), make, r=3, target_modules=["query", "intermediate.dense"])
    vector = vectors.open(tmp_path / "adapter", tmp_path / "base")
    for name, shape in vector.shapes.items():
        whole = vector.block(name, 0, shape[0] * shape[1])
        for step in (1000, 1531, 7777):
            parts = [
                vector.block(name, start, min(start + step, len(whole)))
                for start in range(0, len(whole), step)
            ]
            assert torch.equal(torch.cat(parts), whole)


def test_sums_and_multiples_stay_low_rank_and_exact(pair):
    first, second = pair
    combined = 2 * first - second
    assert isinstance(combined, vectors.LowRankVector)
    assert combined.modules == first.modules
    for module in combined.modules:
        one, two, both = (v.factors(module) for v in (first, second, combined))
        assert both.A.shape[0] == 4
        expected = 2 * one.scale * one.B @ one.A - two.scale * two.B @ two.A
        torch.testing.assert_close(both.scale * both.B @ both.A, expected)
        torch.testing.assert_close(combined.delta(f"{module}.weight"), expected)


def test_heads_saved_beside_the_factors_stay_apart(pair):
    assert sorted(pair[0].heads) == [
        "base_model.model.classifier.bias",
        "base_model.model.classifier.weight",
    ]
    assert not any("classifier" in name for name in pair[0].shapes)


def test_embeddings_saved_whole_are_part_of_the_vector(tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = bert()
    model.save_pretrained(tmp_path / "base")
    before = model.embeddings.word_embeddings.weight.detach().clone()
    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["word_embeddings"])
    adapted = get_peft_model(model, config)
    saved = adapted.base_model.model.embeddings.word_embeddings.modules_to_save["default"]
    with torch.no_grad():
        saved.weight += 0.5
    adapted.save_pretrained(tmp_path / "adapter")
    vector = vectors.open(tmp_path / "adapter", tmp_path / "base")
    name = "embeddings.word_embeddings.weight"
    assert vector.saved_whole == (name,)
    torch.testing.assert_close(vector.delta(name), (before + 0.5) - before)


def test_an_adapter_for_another_base(tmp_path, family):
    bert(hidden_size=24).save_pretrained(tmp_path / "wider")
    with pytest.raises(AlliageError, match="another base") as caught:
        vectors.open(family / "sentiment-lora", tmp_path / "wider")
    assert len(caught.value.problems) == 4
    gpt2().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(AlliageError, match=r"the base .* has no such module") as caught:
        vectors.open(family / "sentiment-lora", tmp_path / "gpt2")
    assert len(caught.value.problems) == 4
