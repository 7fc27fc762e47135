import pytest
import yaml

from alliage.errors import UsageError
from alliage.merging import load_recipe, parse_recipe
from alliage.merging.recipe.mergekit import from_mergekit, is_mergekit
from alliage.merging.recipe.parameters import depth_of

# In the style of the examples in mergekit's own documentation.
LINEAR = """
models:
  - model: org/one
    parameters: {weight: 1.0}
  - model: org/two@v2+org/lora@main
    parameters: {weight: 0.3}
merge_method: linear
dtype: float16
"""
SLERP = """
slices:
  - sources:
      - {model: org/other, layer_range: [0, 32]}
      - {model: org/base, layer_range: [0, 32]}
merge_method: slerp
base_model: org/base
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
dtype: float32
"""
TIES = """
models:
  - model: org/one
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: org/two
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: org/three
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: org/base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
"""
STACK = """
slices:
- sources:
  - {model: org/one, layer_range: [0, 16]}
- sources:
  - model: org/two
    layer_range: [8, 24]
    parameters:
      scale:
      - {filter: o_proj, value: 0.0}
      - {filter: down_proj, value: 0.0}
      - {value: 1.0}
merge_method: passthrough
dtype: bfloat16
"""


def read(text: str):
    return from_mergekit(yaml.safe_load(text), "merge.yml")


def messages(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(text)
    return str(caught.value)


def layer(number: int, module: str) -> str:
    return f"model.layers.{number}.{module}.weight"


def test_its_form_is_told_by_its_key():
    assert is_mergekit({"merge_method": "ties"})
    assert not is_mergekit({"method": "ties"})
    assert not is_mergekit(["merge_method"])


def test_linear():
    recipe = read(LINEAR)
    assert (recipe.method, recipe.dialect, recipe.base) == ("average", "mergekit", None)
    assert recipe.refs == ("org/one", "org/two@v2+org/lora@main")
    assert recipe.dtype == "float16"
    assert recipe.settings()[1] == {"weight": [1.0, 0.3], "normalize": True}
    assert recipe.notes == ("dtype: mergekit computes in float16, this merge in float32.",)


def test_slerp_starts_from_the_base_wherever_it_is_listed():
    recipe = read(SLERP)
    assert recipe.refs == ("org/base", "org/other")
    assert recipe.slices[0].models[0].layers == (0, 32)
    assert recipe.notes == ()
    found = [
        recipe.arguments_for(name, depth_of(name, 32, dialect="mergekit"), slice_index=0)["t"]
        for name in (layer(0, "self_attn.q"), layer(31, "self_attn.q"), layer(31, "mlp.up"))
    ]
    assert found == [0, 1, 0]
    assert recipe.arguments_for("lm_head.weight", 0.0, slice_index=0)["t"] == 0.5


def test_ties_with_gradients_and_filters():
    recipe = read(TIES)
    assert recipe.base == "org/base"
    assert recipe.refs == ("org/one", "org/two", "org/three")
    mlp = recipe.arguments_for(layer(16, "mlp.up"), 0.5)
    assert mlp["density"] == [0.7, 0.5, 0.33]
    assert mlp["weight"] == pytest.approx([1.0, 0.5, 0.5], abs=1e-15)
    attention = recipe.arguments_for(layer(0, "self_attn.q"), 0.0)
    assert attention["density"] == [1.0, 0.5, 0.33]
    assert attention["weight"] == [1.0, 0.0, 0.0]
    assert (mlp["trim"], mlp["combine"], mlp["scale"]) == ("tensor", "signed_mean", 1.0)


def test_ties_that_does_not_normalize_sums():
    recipe = read(TIES.replace("normalize: true", "normalize: false\n  lambda: 0.4"))
    arguments = recipe.arguments_for(layer(0, "mlp.up"), 0.0)
    assert (arguments["combine"], arguments["scale"]) == ("sum", 0.4)


def test_layers_stacked():
    recipe = read(STACK)
    assert [part.models[0].layers for part in recipe.slices] == [(0, 16), (8, 24)]
    first = recipe.arguments_for(layer(20, "self_attn.o_proj"), 0.2, slice_index=0)
    second = recipe.arguments_for(layer(20, "self_attn.o_proj"), 0.2, slice_index=1)
    assert (first["scale"], second["scale"]) == ([1.0], [0.0])


def test_the_base_among_the_models_is_not_merged_into_itself():
    text = "{merge_method: task_arithmetic, base_model: b, models: [{model: b}, {model: x}], "
    recipe = read(text + "parameters: {weight: 0.5, density: 0.3, rescale: 1}}")
    assert recipe.refs == ("x",)
    assert recipe.settings()[1] == {"weight": [0.5], "scale": 1.0}


def test_linear_averages_the_base_in_as_mergekit_does():
    text = "{merge_method: linear, base_model: b, models: [{model: x, parameters: {weight: 2}}]"
    assert "linear needs weight of b for every tensor" in messages(text + "}")
    recipe = read(text + ", parameters: {weight: 3}}")
    assert recipe.refs == ("x", "b")
    assert recipe.settings()[1]["weight"] == [2, 3]


def test_the_nearest_setting_wins_down_to_the_module():
    recipe = read("""
merge_method: task_arithmetic
base_model: b
parameters: {weight: 1, lambda: 0.1}
modules:
  default:
    parameters:
      weight: {filter: mlp, value: 2}
      lambda: 0.2
    slices:
    - parameters: {weight: [{filter: attn, value: 3}]}
      sources:
      - {model: b, layer_range: [0, 4]}
      - {model: x, layer_range: [0, 4]}
      - {model: y, layer_range: [0, 4], parameters: {weight: {filter: q_proj, value: 4}}}
""")
    found = {
        kind: recipe.arguments_for(layer(0, kind), 0, slice_index=0)
        for kind in ("attn.q_proj", "attn.k_proj", "mlp.up", "norm")
    }
    assert {kind: each["weight"] for kind, each in found.items()} == {
        "attn.q_proj": [3, 4], "attn.k_proj": [3, 3], "mlp.up": [2, 2], "norm": [1, 1],
    }  # fmt: skip
    assert {each["scale"] for each in found.values()} == {0.2}


def test_values_are_taken_as_mergekit_takes_them():
    recipe = read("""
merge_method: dare_ties
base_model: {model: {path: org/base, revision: v1}}
models: [{model: {model: org/x, lora: org/lora}}]
parameters:
  weight: [{filter: "*", value: "1e-1"}, {filter: mlp, value: 7}]
  density: true
  normalize: "on"
  lambda: [{filter: mlp, value: "2"}, {filter: null, value: ["0", 1]}]
""")
    assert (recipe.base, recipe.refs) == ("org/base@v1", ("org/x+org/lora",))
    arguments = recipe.arguments_for(layer(0, "attn"), 0.5)
    assert arguments["weight"] == [0.1]
    assert arguments["density"] == [1.0]
    assert (arguments["combine"], arguments["scale"]) == ("signed_mean", 0.5)
    assert recipe.arguments_for(layer(0, "mlp"), 0.5)["scale"] == 2.0


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("out_dtype: bfloat16\ndtype: float64", "bfloat16"),
        ("dtype: torch.float16", "float16"),
        ("", None),
    ],
)
def test_the_outputs_type(lines, expected):
    assert read(LINEAR.replace("dtype: float16", lines)).dtype == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [("base", "base"), ("org/one", "org/one"), ("org/base", "base"), ("null", "base")],
)
def test_the_outputs_tokenizer(source, expected):
    recipe = read(TIES + f"tokenizer_source: {source}")
    assert recipe.tokenizer == expected
    recipe.settings()
    if source != "null":
        assert read(TIES + f"tokenizer: {{source: {source}}}").tokenizer == expected
        assert any("by their number" in note for note in recipe.notes)


MODELS = "models: [{model: x}]"
PLAIN = "merge_method: ties\nbase_model: b\nparameters: {weight: 1}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLAIN + MODELS + "\nbase_modle: b", "'base_modle'. Did you mean 'base_model'"),
        (PLAIN + MODELS + "\nfoo: 1", "unknown key 'foo'. mergekit skips it: take it out."),
        (PLAIN + "models: [{model: x, paramters: {}}]", "merge.yml: models[0]: unknown key"),
        (PLAIN + "models: [{}]", "models[0].model: expected a model, found None."),
        (PLAIN + "models: [x]", "models[0]: expected keys and values, found 'x'."),
        (PLAIN + "models: x", "models: expected a list, found 'x'."),
        (PLAIN + "models: [{model: b}]", "models: only the base is there"),
        (PLAIN + "models: [{model: x}, {model: x}]", "models: x is there twice."),
        (PLAIN, "expected one of models, slices and modules, found none of them."),
        (PLAIN + MODELS + "\nslices: [{}]", "found models and slices."),
        (PLAIN + "modules: {text: {}, vision: {}}", "the one module default"),
        (PLAIN + "modules: {default: {parameters: {}}}", "expected either models or slices"),
        (PLAIN + "modules: [1]", "modules: expected keys and values, found [1]."),
        (
            PLAIN.replace("ties", "nuslerp") + "models: [{model: x}, {model: y}, {model: z}]",
            "models: nuslerp takes 2, found 3.",
        ),
        (
            "merge_method: model_stock\nbase_model: b\nmodels: [{model: x}]",
            "models: model_stock takes 3 or more, the base included, found 2.",
        ),
        (
            "merge_method: multislerp\nparameters: {weight: -1}\nmodels: [{model: x}]",
            "parameters.weight: must be in [0, inf), got -1.",
        ),
        (PLAIN.replace("ties", "tise") + MODELS, "no method 'tise'. Did you mean 'ties'"),
        (PLAIN.replace("ties", "[ties]") + MODELS, "mergekit has no method ['ties']."),
        (PLAIN.replace("base_model: b", "") + MODELS, "base_model: ties needs one."),
        (PLAIN.replace("weight: 1", "") + MODELS, "models: ties needs weight of x for every"),
        (
            PLAIN.replace("weight: 1", "weight: {filter: mlp, value: 1}") + MODELS,
            "Give weight, or a rule without a filter.",
        ),
        (
            PLAIN + "models: [{model: x, parameters: {weight: [0, {value: 1}]}}]",
            "models[0].parameters.weight[0]: is 0, but others in this list are rules",
        ),
        (
            PLAIN + "models: [{model: x, parameters: {weight: [{value: [0, x]}]}}]",
            "models[0].parameters.weight[0].value[1]: must be a finite number, got 'x'.",
        ),
        (
            PLAIN + "models: [{model: x, parameters: {densty: 1}}]",
            "models[0].parameters: ties has no parameter 'densty'. Did you mean 'density'?",
        ),
        (
            PLAIN + "models: [{model: x, parameters: {normalize: true}}]",
            "normalize is one value for all models: mergekit skips it here.",
        ),
        (
            PLAIN.replace("weight: 1", "weight: 1, normalize: maybe") + MODELS,
            "parameters.normalize: must be true or false, got 'maybe'.",
        ),
        (
            PLAIN.replace("weight: 1", "weight: 1, rescale: [false, true]") + MODELS,
            "parameters.rescale: only false is supported for ties.",
        ),
        (PLAIN.replace("weight: 1", "weight: null") + MODELS, "got None"),
        (PLAIN.replace("weight: 1", "weight: []") + MODELS, "parameters.weight: is an empty list."),
        (PLAIN.replace("{weight: 1}", "[weight]") + MODELS, "parameters: expected keys and values"),
        (PLAIN + MODELS + "\ntokenizer_source: union", "tokenizer_source: union is not supported"),
        (PLAIN + MODELS + "\ntokenizer: {}", "tokenizer.source: union is not supported"),
        (PLAIN + MODELS + "\ntokenizer: {source: base, tokens: {a: {}}}", "tokenizer.tokens"),
        (PLAIN + MODELS + "\ntokenizer: {source: b, pad_to_multiple_of: 8}", "pad_to_multiple_of"),
        (
            PLAIN + MODELS + "\ntokenizer: {source: base}\ntokenizer_source: base",
            "goes not with tokenizer_source",
        ),
        (PLAIN + MODELS + "\nchat_template: chatml", "chat_template: 'chatml' is not supported"),
        (PLAIN + MODELS + "\ndtype: float64", "dtype: is float64. Expected one of float32"),
        (PLAIN + MODELS + "\nout_dtype: int8", "out_dtype: is int8."),
        (
            PLAIN + "slices: [{sources: [{model: x, layer_range: [0, 4]}]}]",
            "slices[0].sources: ties needs the base among them. Add b.",
        ),
        (
            PLAIN + "slices: [{sources: [{model: x}], residual_weight: 1}]",
            "unknown key 'residual_weight'",
        ),
        (
            PLAIN + "slices: [{sources: [{model: x, layer_range: [4, 4]}]}]",
            "layer_range: expected [start, stop] with 0 <= start < stop, got [4, 4].",
        ),
        (PLAIN + "slices: [{}]", "slices[0].sources: expected a list, found None."),
        (
            PLAIN + "slices: [{sources: [{model: x, layer_range: [0, 4]}, "
            "{model: b, layer_range: [0, 3]}]}]",
            "slices[0]: its sources have different numbers of layers.",
        ),
        (
            PLAIN + "slices: [{sources: [{model: x, layer_range: [0, 4]}, "
            "{model: b, layer_range: [1, 5]}]}]",
            "compares each with the base's layer of its place",
        ),
        (
            PLAIN + "slices: [{base_model: c, sources: [{model: x, layer_range: [0, 4]}, "
            "{model: c, layer_range: [0, 4]}]}]",
            "slices[0].base_model: is another base than the recipe's.",
        ),
        (
            "merge_method: slerp\nbase_model: b\nparameters: {t: 1}\nmodels: [{model: x}, "
            "{model: y}]",
            "slerp takes 2, the base included, found 3.",
        ),
        ("merge_method: slerp\nbase_model: b\n" + MODELS, "models: slerp needs t for every"),
        (
            "merge_method: passthrough\nbase_model: b\n" + MODELS,
            "passthrough takes 1, the base included, found 2.",
        ),
        (
            "merge_method: linear\nmodels: [{model: {path: x}, parameters: {weight: 1}}]",
            "models[0].model: unknown key 'path'.",
        ),
        (
            "merge_method: linear\nmodels: [{model: {model: x, override_architecture: y}}]",
            "unknown key 'override_architecture'",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(text, expected):
    assert expected in messages(text)


def test_every_problem_at_once():
    found = messages(
        "merge_method: ties\nfoo: 1\nmodels: [{model: x, parameters: {wieght: 1}}]\n"
        "chat_template: x\ndtype: int8"
    )
    for part in ("foo", "wieght", "needs weight of x", "base_model", "chat_template", "int8"):
        assert part in found


def test_a_slices_own_base_is_where_slerp_starts():
    recipe = read("""
merge_method: slerp
parameters: {t: 0.25}
slices:
- {base_model: y, sources: [{model: x, layer_range: [0, 2]}, {model: y, layer_range: [2, 4]}]}
- {base_model: x, sources: [{model: x, layer_range: [2, 4]}, {model: y, layer_range: [0, 2]}]}
""")
    assert [[entry.model for entry in part.models] for part in recipe.slices] == [
        ["y", "x"], ["x", "y"],
    ]  # fmt: skip
    assert recipe.settings()[1] == {"t": 0.25}


def test_paths_count_from_the_working_directory_then_from_the_recipe(tmp_path, monkeypatch):
    for name in ("here/one", "there/one", "there/two", "there/lora"):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / "there" / "merge.yml"
    path.write_text(LINEAR.replace("org/", "").replace("@v2", "").replace("@main", ""))
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_recipe(path)
    assert recipe.refs == ("one", f"{tmp_path}/there/two+{tmp_path}/there/lora")
    assert recipe.notes


def test_both_forms_are_read_from_one_place():
    assert parse_recipe(yaml.safe_load(TIES)).dialect == "mergekit"
    assert parse_recipe({"method": "ties", "models": ["x"]}).dialect == "paper"
