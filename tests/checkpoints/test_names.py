import pytest

from alliage.checkpoints.names import (
    align,
    is_head,
    is_task_head,
    kind_of,
    layer_count,
    layer_of,
    parse_kinds,
)

# file names and names in memory of real architectures
KNOWN = [
    ("bert.encoder.layer.3.attention.self.query.weight", 3, "query"),
    ("encoder.layer.11.attention.output.dense.bias", 11, "output"),
    ("roberta.encoder.layer.0.output.dense.weight", 0, "mlp"),
    ("roberta.encoder.layer.0.output.LayerNorm.weight", 0, "norm"),
    ("vit.encoder.layer.2.attention.attention.value.weight", 2, "value"),
    ("vit.layers.2.attention.q_proj.weight", 2, "query"),
    ("vit.layers.2.mlp.fc1.weight", 2, "mlp"),
    ("distilbert.transformer.layer.5.attention.k_lin.weight", 5, "key"),
    ("distilbert.transformer.layer.5.ffn.lin1.weight", 5, "mlp"),
    ("transformer.h.7.attn.c_attn.weight", 7, "qkv"),
    ("h.7.attn.c_proj.weight", 7, "output"),
    ("h.7.mlp.c_proj.weight", 7, "mlp"),
    ("h.7.ln_1.weight", 7, "norm"),
    ("gpt_neox.layers.1.attention.query_key_value.weight", 1, "qkv"),
    ("gpt_neox.layers.1.attention.dense.weight", 1, "output"),
    ("gpt_neox.layers.1.mlp.dense_h_to_4h.weight", 1, "mlp"),
    ("model.layers.30.self_attn.v_proj.weight", 30, "value"),
    ("model.layers.30.self_attn.o_proj.weight", 30, "output"),
    ("model.layers.30.mlp.gate_proj.weight", 30, "mlp"),
    ("model.layers.30.post_attention_layernorm.weight", 30, "norm"),
    ("model.norm.weight", None, "norm"),
    ("model.embed_tokens.weight", None, "embedding"),
    ("transformer.wte.weight", None, "embedding"),
    ("encoder.block.4.layer.0.SelfAttention.q.weight", 4, "query"),
    ("decoder.block.4.layer.1.EncDecAttention.o.weight", 4, "output"),
    ("decoder.block.4.layer.2.DenseReluDense.wi_0.weight", 4, "mlp"),
    ("text_model.encoder.layers.6.self_attn.out_proj.weight", 6, "output"),
    ("model.layers.9.attn.Wqkv.weight", 9, "qkv"),
    ("lm_head.weight", None, "head"),
    ("classifier.out_proj.weight", None, "head"),
    ("classifier.dense.weight", None, "head"),
    ("score.weight", None, "head"),
]


@pytest.mark.parametrize(("name", "layer", "kind"), KNOWN)
def test_layers_and_kinds(name, layer, kind):
    assert layer_of(name) == layer
    assert kind_of(name) == kind


def test_layers_are_counted_to_the_last_one():
    assert layer_count(["embed.weight", "layers.0.weight", "layers.11.weight", "norm.bias"]) == 12
    assert layer_count(["embed.weight"]) == layer_count([]) == 1


def test_heads():
    assert is_task_head("classifier.weight")
    assert is_task_head("score.weight")
    assert is_head("bert.pooler.dense.weight")
    assert is_head("lm_head.weight")
    assert not is_task_head("lm_head.weight")
    assert not is_head("encoder.layer.0.attention.self.query.weight")


def test_kinds_from_a_command_line():
    assert parse_kinds("q,v") == ("query", "value")
    assert parse_kinds("mlp, key") == ("mlp", "key")
    with pytest.raises(KeyError, match="valeu"):
        parse_kinds("q,valeu")


def test_alignment_strips_a_prefix_on_either_side():
    bare = ["encoder.layer.0.query.weight", "embeddings.word.weight"]
    under_head = ["bert." + name for name in bare] + ["classifier.weight"]
    found = align(bare, under_head)
    assert found.pairs == dict(zip(bare, under_head, strict=False))
    assert found.missing == ()
    assert found.extra == ("classifier.weight",)
    back = align(under_head, bare)
    assert back.pairs == dict(zip(under_head, bare, strict=False))
    assert back.missing == ("classifier.weight",)


def test_equal_names_match_as_they_are():
    names = ["model.layers.0.x", "lm_head.weight"]
    assert align(names, names).pairs == {name: name for name in names}


def test_nothing_in_common():
    found = align(["a.x"], ["b.y"])
    assert (found.pairs, found.missing, found.extra) == ({}, ("a.x",), ("b.y",))
