from __future__ import annotations

import pytest

from alliage.errors import AlliageError
from alliage.pruning.config import reindexed
from alliage.pruning.families import Family, Stack

FAMILY = Family("layers")
STACK = Stack("model.layers", 6)
KEEP = (0, 2, 3, 5)


def new(**keys):
    return reindexed({"num_hidden_layers": 6, **keys}, FAMILY, STACK, KEEP, "config.json")


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("layer_types", list("abcdef"), list("acdf")),
        ("mlp_layer_types", list("abcdef"), list("acdf")),
        ("no_rope_layers", [1, 1, 1, 0, 1, 1], [1, 1, 0, 1]),
        ("no_rope_layers", [], []),
        ("mlp_only_layers", [1, 3, 5], [2, 3]),
        ("cross_attention_layers", [1], []),
        ("pruned_heads", {"2": [0, 1], "4": [3]}, {"1": [0, 1]}),
        ("per_layer_config", {"5": {"head_dim": 8}}, {"3": {"head_dim": 8}}),
        ("max_window_layers", 3, 2),
        ("max_window_layers", 28, 4),
        ("max_window_layers", 0, 0),
        ("first_k_dense_replace", 1, 1),
        ("hidden_size", 64, 64),
        ("layer_types", None, None),
    ],
)
def test_layerwise_keys_follow_the_layers(key, before, after):
    assert new(**{key: before}) == {"num_hidden_layers": 4, key: after}


def test_both_names_of_the_depth_are_changed():
    config = {"n_layers": 6, "num_hidden_layers": 6}
    family = Family("transformer.layer", "n_layers")
    assert reindexed(config, family, STACK, KEEP, "") == {"n_layers": 4, "num_hidden_layers": 4}


def test_a_silent_config_gets_the_depth():
    assert reindexed({}, FAMILY, STACK, KEEP, "") == {"num_hidden_layers": 4}


def test_implied_settings_are_written_out_for_the_kept_layers():
    family = Family(
        "layers", implied=lambda _config, n: {"layer_types": [f"t{i}" for i in range(n)]}
    )
    found = reindexed({"num_hidden_layers": 6}, family, STACK, KEEP, "")
    assert found["layer_types"] == ["t0", "t2", "t3", "t5"]


def test_what_cannot_be_carried_over_is_named_all_at_once():
    with pytest.raises(AlliageError) as caught:
        new(
            layer_types=["a", "b"],
            no_rope_layers=dict.fromkeys("abcdef", 1),
            pruned_heads={"two": [1]},
            max_window_layers="all",
            out_indices=[2, 5],
            quantization_config={"modules_to_not_convert": ["model.layers.3.mlp"]},
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 6
    for expected in (
        "layer_types does not fit 6 layers: ['a', 'b']",
        "no_rope_layers does not fit",
        "pruned_heads does not fit",
        "max_window_layers does not fit",
        "out_indices asks for the outputs of layers: [2, 5]",
        "names single layers, such as model.layers.3",
    ):
        assert expected in text
