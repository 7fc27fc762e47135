import math

import pytest

from alliage.merging.recipe.parameters import depth_of, problems, resolve
from alliage.merging.signature import In, Parameter

WEIGHT = Parameter("weight", float, 1.0, In(0, 2), (), True, "")
SEED = Parameter("seed", int, 0, None, (), False, "")
NORMALIZE = Parameter("normalize", bool, True, None, (), False, "")
TRIM = Parameter("trim", str, "model", None, ("model", "tensor"), False, "")

ATTENTION = "model.layers.3.self_attn.q_proj.weight"
MLP = "model.layers.3.mlp.up_proj.weight"


@pytest.mark.parametrize("value", [0.5, 3, True, "tensor"])
def test_a_plain_value_is_the_same_for_every_tensor(value):
    assert resolve(value, ATTENTION, 0.3) is value


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.625, 0.75), (0.75, 0.5), (1.0, 0.0)],
)
def test_a_gradient_is_linear_between_values_at_equal_distances(depth, expected):
    assert resolve([0, 1, 0], ATTENTION, depth) == expected


def test_a_gradient_of_one_value_is_that_value():
    assert [resolve([0.7], ATTENTION, depth) for depth in (0, 0.5, 1)] == [0.7, 0.7, 0.7]


def test_a_gradient_of_choices_steps():
    found = [resolve([False, True, False], ATTENTION, depth) for depth in (0, 0.49, 0.5, 0.99, 1)]
    assert found == [False, False, True, True, False]


def test_the_first_rule_whose_filter_is_in_the_name_wins():
    rules = [
        {"filter": "q_proj", "value": 0.1},
        {"filter": "self_attn", "value": 0.2},
        {"value": [0, 1]},
    ]
    assert resolve(rules, ATTENTION, 0.5) == 0.1
    assert resolve(rules, ATTENTION.replace("q_proj", "k_proj"), 0.5) == 0.2
    assert resolve(rules, MLP, 0.25) == 0.25
    assert resolve(rules[:2], MLP, 0.25) is None


@pytest.mark.parametrize(
    ("value", "declared", "expected"),
    [
        (3, WEIGHT, "w: must be in [0, 2], got 3."),
        ([0, 3], WEIGHT, "w[1]: must be in [0, 2], got 3."),
        ([{"filter": "mlp", "value": [0, 1, -1]}], WEIGHT, "w[0].value[2]: must be in [0, 2]"),
        ([], WEIGHT, "w: is an empty list."),
        ([{"value": []}], WEIGHT, "w[0].value: is an empty list."),
        ([[1, 2]], WEIGHT, "w[0]: is a list inside a list."),
        ({"filter": "mlp", "value": 1}, WEIGHT, "w: is one rule. Write a list of rules"),
        ([1, {"value": 1}], WEIGHT, "w[0]: is 1, but others in this list are rules"),
        ([{"value": 1}, 1], WEIGHT, "w[1]: is 1, but others in this list are rules"),
        ([{"filter": "mlp"}], WEIGHT, "w[0]: has no value."),
        ([{"filtr": "mlp", "value": 1}], WEIGHT, "unknown key 'filtr'. Did you mean 'filter'?"),
        ([{"filter": 3, "value": 1}], WEIGHT, "w[0].filter: must be text, got 3."),
        ([{"filter": "", "value": 1}], WEIGHT, "w[0].filter: must be text, got ''."),
        ([{"filter": None, "value": 1}], WEIGHT, "w[0].filter: must be text, got None."),
        ([{"value": 1}, {"filter": "mlp", "value": 1}], WEIGHT, "rules after it never apply"),
        ([{"value": [{"value": 1}]}], WEIGHT, "w[0].value: holds rules itself."),
        ([1, "x"], WEIGHT, "w[1]: must be a finite number, got 'x'."),
        ([1, None], WEIGHT, "w[1]: must be a finite number, got None."),
        (10**400, WEIGHT, "w: is too large a number."),
        (math.inf, WEIGHT, "w: must be a finite number, got inf."),
        ([1, 2], SEED, "seed is a whole number, which has no gradient."),
        ([{"value": 1.5}], SEED, "w[0].value: must be a whole number, got 1.5."),
        ([True, 1], NORMALIZE, "w[1]: must be true or false, got 1."),
        (["model", "modle"], TRIM, "w[1]: must be one of model, tensor, got 'modle'."),
    ],
)
def test_what_is_wrong_is_said_with_its_path(value, declared, expected):
    assert expected in "\n".join(map(str, problems(value, declared, "w")))


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (0.5, WEIGHT),
        ([0, 0.5, 2], WEIGHT),
        ([{"filter": "mlp", "value": [0, 1]}, {"filter": "attn", "value": 1}], WEIGHT),
        ([{"filter": "mlp", "value": 7}, {"value": 3}], SEED),
        ([7], SEED),
        ([True, False], NORMALIZE),
        (["model", "tensor"], TRIM),
    ],
)
def test_what_is_right_has_no_problems(value, declared):
    assert problems(value, declared, "w") == []


def test_every_wrong_number_is_reported():
    value = [{"filter": "mlp", "value": [3, 1, 4]}, {"value": -1}]
    where = [problem.where for problem in problems(value, WEIGHT, "w")]
    assert where == ["w[0].value[0]", "w[0].value[2]", "w[1].value"]


def test_layers_stand_at_equal_distances():
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(5)]
    assert [depth_of(name, 5) for name in names] == [0, 0.25, 0.5, 0.75, 1]
    assert [depth_of(name, 3, first=2) for name in names[2:]] == [0, 0.5, 1]


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "bert.embeddings.LayerNorm.weight",
        "transformer.wpe.weight",
        "vit.embeddings.cls_token",
        "vision_model.pre_layrnorm.weight",
        "shared.weight",
        "model.decoder.project_in.weight",
    ],
)
def test_what_comes_before_the_layers_stands_at_0(name):
    assert depth_of(name, 12) == 0.0


@pytest.mark.parametrize(
    "name",
    [
        "model.norm.weight",
        "transformer.ln_f.bias",
        "lm_head.weight",
        "embed_out.weight",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "vision_model.post_layernorm.weight",
        "encoder.final_layer_norm.weight",
        "visual_projection.weight",
    ],
)
def test_what_comes_after_the_layers_stands_at_1(name):
    assert depth_of(name, 12) == 1.0
    assert depth_of(name, 12, dialect="mergekit") == 0.0


def test_an_only_layer_stands_at_0_but_at_1_for_mergekit():
    assert depth_of(MLP, 1) == 0.0
    assert depth_of(MLP, 1, dialect="mergekit") == 1.0
