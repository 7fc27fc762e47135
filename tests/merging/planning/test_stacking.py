"""Recipes with slices: what comes out computes what the chosen layers compute in turn."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage.errors import AlliageError, UsageError
from alliage.merging import parse_recipe, plan, run
from tests.merging.test_odd_inputs import store

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def llama(seed, layers, **changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {
        "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 24, "vocab_size": 20, "initializer_range": 0.3,
    } | changes  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **settings)).eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """name -> a model in memory; their folder."""
    home = tmp_path_factory.mktemp("stack")
    made = {"short": llama(1, 2), "deep": llama(2, 5)}
    for name, model in made.items():
        model.save_pretrained(home / name)
    return home, made


def slices(home, *parts, method="passthrough", **more):
    """Parts: (model, start, stop), or a list of them to be merged."""
    content = [
        {
            "models": [
                {"model": str(home / name), "layers": [start, stop]}
                for name, start, stop in (part if isinstance(part, list) else [part])
            ]
        }
        for part in parts
    ]
    return parse_recipe({"method": method, "slices": content} | more)


def expected(first, last, layers):
    """The first one's embeddings, the layers, the last one's final norm and head."""
    model = copy.deepcopy(first)
    model.model.layers = torch.nn.ModuleList([copy.deepcopy(layer) for layer in layers])
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = number
    model.model.norm, model.lm_head = copy.deepcopy(last.model.norm), copy.deepcopy(last.lm_head)
    model.config.num_hidden_layers = len(layers)
    return model


def hidden(model):
    with torch.no_grad():
        out = model(IDS, output_hidden_states=True, use_cache=False)
    return [*out.hidden_states, out.logits]


def loaded(folder):
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize(
    "parts",
    [
        [("short", 0, 2), ("deep", 2, 5)],
        [("deep", 0, 3), ("deep", 1, 5), ("short", 1, 2)],
        [("deep", 4, 5)],
    ],
)
def test_the_stack_computes_what_its_layers_compute(models, tmp_path, parts):
    home, made = models
    run(plan(slices(home, *parts)), tmp_path / "out")
    layers = [made[name].model.layers[i] for name, start, stop in parts for i in range(start, stop)]
    reference = expected(made[parts[0][0]], made[parts[-1][0]], layers)
    found = loaded(tmp_path / "out")
    assert found.config.num_hidden_layers == len(layers)
    for one, other in zip(hidden(found), hidden(reference), strict=True):
        assert torch.equal(one, other)


def test_layers_of_different_depth_are_merged_with_each_other(models, tmp_path):
    home, made = models
    parts = [[("short", 0, 1), ("deep", 3, 4)], [("short", 1, 2), ("deep", 0, 1)]]
    run(plan(slices(home, *parts, method="average")), tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    short, deep = (made[name].state_dict() for name in ("short", "deep"))
    for layer, (one, other) in enumerate([(0, 3), (1, 0)]):
        key = "model.layers.{}.mlp.up_proj.weight"
        mean = (short[key.format(one)].double() + deep[key.format(other)].double()) / 2
        torch.testing.assert_close(out[key.format(layer)].double(), mean, rtol=0, atol=1e-7)
    mean = (short["model.norm.weight"] + deep["model.norm.weight"]) / 2
    assert torch.equal(out["model.norm.weight"], mean)
    assert loaded(tmp_path / "out").config.num_hidden_layers == 2


def test_parameters_by_slice_and_model(models, tmp_path):
    home, made = models
    content = {
        "method": "passthrough",
        "parameters": {"scale": [{"filter": "down_proj", "value": 0.0}, {"value": 1.0}]},
        "slices": [
            {"models": [{"model": str(home / "deep"), "layers": [0, 2]}]},
            {
                "models": [{"model": str(home / "deep"), "layers": [2, 3]}],
                "parameters": {"scale": 0.5},
            },
        ],
    }
    run(plan(parse_recipe(content)), tmp_path / "out")
    out, deep = load_file(tmp_path / "out" / "model.safetensors"), made["deep"].state_dict()
    assert not out["model.layers.1.mlp.down_proj.weight"].any()
    up = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(out[up.format(1)], deep[up.format(1)])
    assert torch.equal(out[up.format(2)], deep[up.format(2)] / 2)
    assert torch.equal(out["model.embed_tokens.weight"], deep["model.embed_tokens.weight"])
    assert torch.equal(out["lm_head.weight"], deep["lm_head.weight"] / 2)


def test_wrong_layers_and_tensors_are_named_all_at_once(models, tmp_path):
    home, _ = models
    llama(3, 2, hidden_size=24).save_pretrained(tmp_path / "wide")
    (tmp_path / "deep").symlink_to(home / "deep")
    (tmp_path / "short").symlink_to(home / "short")
    parts = [("short", 1, 4), [("deep", 0, 1), ("wide", 0, 1)]]
    made = plan(slices(tmp_path, *parts, method="average"))
    said = "\n".join(str(problem) for problem in made.problems)
    for layer in (2, 3):
        assert f"{tmp_path / 'short'}: has no layer {layer}." in said
    assert "layer 1." not in said
    wide = f"{tmp_path / 'wide'}: model.layers.0.self_attn.q_proj.weight"
    assert f"{wide}: has the shape [24, 24], expected [16, 16]." in said
    with pytest.raises(AlliageError, match="has no layer 2"):
        run(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="passthrough merges 1 model, found 2"):
        plan(slices(home, [("deep", 0, 1), ("short", 0, 1)])).raise_problems()
    with pytest.raises(UsageError, match="factor_average merges adapters, not layers"):
        plan(slices(home, ("deep", 0, 1), method="factor_average")).raise_problems()


@pytest.mark.parametrize("parts", [[("short", 0, 2), ("wide", 0, 1)], [("wide", 0, 1)]])
def test_layers_of_another_width_are_refused_with_all_that_does_not_fit(models, tmp_path, parts):
    home, made = models
    wide = llama(3, 1, hidden_size=32)
    wide.save_pretrained(tmp_path / "wide")
    (tmp_path / "short").symlink_to(home / "short")
    short = made["short"].state_dict()
    misfits = {
        f"{tmp_path / 'wide'}: {name}: has the shape {list(tensor.shape)}, "
        f"expected {list(short[name].shape)}."
        for name, tensor in wide.state_dict().items()
        # Without a first slice of its own, "short" is only the base, and so gives config.json.
        if len(parts) == 1 or name != "model.embed_tokens.weight"
    }
    planned = plan(slices(tmp_path, *parts, base=str(tmp_path / "short")))
    assert {str(problem) for problem in planned.problems} == misfits
    with pytest.raises(AlliageError, match="has the shape"):
        run(planned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_width_is_refused_without_a_base_too(models, tmp_path):
    home, _ = models
    llama(3, 2, intermediate_size=40).save_pretrained(tmp_path / "wide")
    planned = plan(slices(tmp_path, (home / "short", 0, 1), ("wide", 1, 2)))
    said = {str(problem).split(": ", 1)[1] for problem in planned.problems}
    assert said == {
        "model.layers.1.mlp.up_proj.weight: has the shape [40, 16], expected [24, 16].",
        "model.layers.1.mlp.gate_proj.weight: has the shape [40, 16], expected [24, 16].",
        "model.layers.1.mlp.down_proj.weight: has the shape [16, 40], expected [16, 24].",
    }


def test_layers_may_differ_as_they_do_in_their_model(tmp_path):
    tensors = {f"model.layers.{i}.weight": torch.full((i + 2,), float(i)) for i in range(3)}
    store(tmp_path / "uneven", tensors, config={"num_hidden_layers": 3})
    run(plan(slices(tmp_path, ("uneven", 1, 3), ("uneven", 0, 1))), tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert [out[f"model.layers.{i}.weight"].shape[0] for i in range(3)] == [3, 4, 2]


def settings_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_settings_for_each_layer_come_from_the_layers_own_model(tmp_path):
    kinds = {"short": ["full", "sliding"], "deep": ["a", "b", "c", "d", "e"]}
    for name, kind in kinds.items():
        tensors = {f"model.layers.{i}.weight": torch.full((2,), float(i)) for i in range(len(kind))}
        tensors["model.embed_tokens.weight"] = torch.ones(3, 2)
        config = {"num_hidden_layers": len(kind), "layer_types": kind, "rope": [1, 2, 3]}
        store(tmp_path / name, tensors, config=config)
    made = plan(slices(tmp_path, ("short", 1, 2), ("deep", 3, 5), ("short", 0, 1)))
    assert made.to_dict()["layers"] == 4
    run(made, tmp_path / "out")
    config = settings_of(tmp_path / "out")
    assert config["num_hidden_layers"] == 4
    assert config["layer_types"] == ["sliding", "d", "e", "full"]
    assert config["rope"] == [1, 2, 3]
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert [out[f"model.layers.{i}.weight"][0].item() for i in range(4)] == [1, 3, 4, 0]


def test_only_lists_of_layers_follow_them_nested_ones_too(tmp_path):
    tensors = {f"model.layers.{i}.weight": torch.full((2,), float(i)) for i in range(2)}
    text = {"num_hidden_layers": 2, "layer_types": ["a", "b"], "eos_token_id": [7, 8]}
    store(tmp_path / "nested", tensors, config={"text_config": text, "eos_token_id": [7, 8]})
    run(plan(slices(tmp_path, ("nested", 1, 2), ("nested", 0, 2))), tmp_path / "out")
    stacked = {"num_hidden_layers": 3, "layer_types": ["b", "a", "b"], "eos_token_id": [7, 8]}
    assert settings_of(tmp_path / "out") == {"text_config": stacked, "eos_token_id": [7, 8]}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_layers": 2, "num_decoder_layers": 2}, "is an encoder-decoder"),
        ({"num_hidden_layers": 2, "is_encoder_decoder": True}, "is an encoder-decoder"),
        ({"depth": 2}, "has no number of layers under num_hidden_layers"),
    ],
)
def test_stacks_that_no_setting_can_count_are_refused(tmp_path, config, said):
    store(tmp_path / "odd", {"layers.0.weight": torch.ones(2)}, config=config)
    with pytest.raises(UsageError, match=f"{tmp_path / 'odd'}: .*{said}"):
        plan(slices(tmp_path, ("odd", 0, 1))).raise_problems()


@pytest.fixture
def tuned(tmp_path):
    """A bare base, two models tuned from it that name everything with a prefix, and an adapter."""
    draw = torch.Generator().manual_seed(0)
    base = {f"encoder.layer.{i}.query.weight": torch.randn(4, 4, generator=draw) for i in range(3)}
    base |= {"embeddings.weight": torch.randn(5, 4, generator=draw)}
    store(tmp_path / "base", base, config={"num_hidden_layers": 3})
    held = {"base": base}
    for name in "ab":
        held[name] = {k: t + torch.randn(t.shape, generator=draw) for k, t in base.items()}
        store(tmp_path / name, {"bert." + key: tensor for key, tensor in held[name].items()})
        store(tmp_path / f"bare-{name}", held[name])
    return tmp_path, held


def lora(folder, base, draw_seed=5, layer=1):
    draw = torch.Generator().manual_seed(draw_seed)
    A, B = torch.randn(2, 4, generator=draw), torch.randn(4, 2, generator=draw)
    module = f"base_model.model.encoder.layer.{layer}.query"
    folder.mkdir()
    save_file(
        {f"{module}.lora_A.weight": A, f"{module}.lora_B.weight": B},
        folder / "adapter_model.safetensors",
    )
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["query"],
        "base_model_name_or_path": str(base),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return 3 * B @ A


@pytest.mark.parametrize("without_kernels", [False, True])
@pytest.mark.parametrize("prefix", ["", "bare-"])
def test_methods_on_deltas_stack_layers_beside_the_bases(
    tuned, monkeypatch, prefix, without_kernels
):
    home, held = tuned
    if without_kernels:
        monkeypatch.setattr("alliage.merging.kernels.find", lambda _: None)
    parts = [[(prefix + name, *layers) for name in "ab"] for layers in ((0, 2), (1, 3))]
    more = {"base": str(home / "base"), "parameters": {"scale": 0.25}}
    run(plan(slices(home, *parts, method="task_arithmetic", **more)), home / "out")
    out = load_file(home / "out" / "model.safetensors")
    base, a, b = (held[name] for name in ("base", "a", "b"))
    moved = {f"encoder.layer.{n}.query.weight": k for n, k in enumerate((0, 1, 1, 2))}
    sources = {new: f"encoder.layer.{old}.query.weight" for new, old in moved.items()}
    sources["embeddings.weight"] = "embeddings.weight"
    assert out.keys() == sources.keys()
    for new, old in sources.items():
        total = base[old].double() + 0.25 * ((a[old] - base[old]) + (b[old] - base[old])).double()
        torch.testing.assert_close(out[new].double(), total, rtol=0, atol=1e-6)
    assert settings_of(home / "out")["num_hidden_layers"] == 4


def test_other_layers_than_the_bases_are_refused_for_deltas(tuned):
    home, _ = tuned
    parts = [[("a", 0, 1), ("b", 1, 2)]]
    with pytest.raises(UsageError, match="compares each with the base's layer"):
        plan(slices(home, *parts, method="task_arithmetic", base=str(home / "base")))
    made = plan(slices(home, ("a", 2, 4), method="task_arithmetic", base=str(home / "base")))
    assert [str(problem) for problem in made.problems] == [f"{home / 'base'}: has no layer 3."]


def test_layers_that_an_adapter_leaves_alone_are_the_bases(tuned):
    home, held = tuned
    update = lora(home / "lora", home / "base")
    chosen = slices(
        home, ("lora", 0, 2), ("lora", 1, 3), method="task_arithmetic", base=str(home / "base"),
        parameters={"scale": 1.0},
    )  # fmt: skip
    run(plan(chosen), home / "out")
    out, base = load_file(home / "out" / "model.safetensors"), held["base"]
    name = "encoder.layer.{}.query.weight"
    assert len(out) == 5
    for new, old in enumerate((0, 1, 1, 2)):
        wanted = base[name.format(old)] + (update if old == 1 else 0)
        torch.testing.assert_close(out[name.format(new)], wanted, rtol=0, atol=1e-6)
    assert torch.equal(out["embeddings.weight"], base["embeddings.weight"])


@pytest.mark.parametrize("method", ["passthrough", "task_arithmetic"])
def test_a_model_with_its_adapter_is_stacked_as_if_it_were_applied(tuned, method):
    home, held = tuned
    update = lora(home / "lora", home / "bare-a")
    ref = f"bare-a+{home / 'lora'}"
    delta = {"base": str(home / "base"), "parameters": {"scale": 1.0}}
    more = delta if method == "task_arithmetic" else {}
    run(plan(slices(home, (ref, 0, 2), (ref, 1, 2), method=method, **more)), home / "out")
    out = load_file(home / "out" / "model.safetensors")
    name = "encoder.layer.{}.query.weight"
    for new, old in enumerate((0, 1, 1)):
        wanted = held["a"][name.format(old)] + (update if old == 1 else 0)
        torch.testing.assert_close(out[name.format(new)], wanted, rtol=0, atol=2e-6)


def test_an_adapter_alone_has_no_layers_to_stack(tuned):
    home, _ = tuned
    lora(home / "lora", home / "bare-a")
    made = plan(slices(home, ("lora", 0, 2)))
    assert "is an adapter: layers are taken from full models" in str(made.problems[0])


@pytest.mark.parametrize("model", ["base", "bare-a"])
@pytest.mark.parametrize("method", ["passthrough", "task_arithmetic"])
@pytest.mark.parametrize("sliced", [True, False])
def test_a_full_model_is_no_adapter(tuned, method, sliced, model):
    home, _ = tuned
    ref = f"{home / model}+{home / 'bare-b'}"
    body = {"slices": [{"models": [{"model": ref, "layers": [0, 1]}]}]}
    chosen = {"method": method, "base": str(home / "base")} | (
        body if sliced else {"models": [ref]}
    )
    made = plan(parse_recipe(chosen))
    said = f"is a full model; {ref} needs an adapter behind the +. To add what models learned"
    assert any(f"{home / 'bare-b'}: {said}" in str(problem) for problem in made.problems)
    with pytest.raises(UsageError, match="use alliage arithmetic"):
        made.raise_problems()


def test_heads_are_kept_beside_a_stack(tuned):
    home, held = tuned
    for number, name in enumerate("ab"):
        head = {"classifier.weight": torch.full((2, 4), float(number))}
        body = {"bert." + key: tensor for key, tensor in held[name].items()}
        store(home / name / "model", body | head)
    parts = [[("a/model", 0, 1), ("b/model", 0, 1)]]
    run(plan(slices(home, *parts, method="ties", base=str(home / "base"))), home / "out")
    for number, name in enumerate(("model", "model-2")):
        kept = load_file(home / "out" / "heads" / name / "head.safetensors")
        assert torch.equal(kept["classifier.weight"], torch.full((2, 4), float(number)))
    assert "classifier.weight" not in load_file(home / "out" / "model.safetensors")
