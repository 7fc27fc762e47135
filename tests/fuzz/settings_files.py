"""Hostile config.json and adapter_config.json beside weights that are in order."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import alliage
from alliage.errors import AlliageError
from alliage.vectors import open as open_vector
from tests.fuzz import hostile
from tests.fuzz.checkpoint_files import look_at, write_safetensors
from tests.fuzz.verdict import sort

_BASE = {
    "model.embed_tokens.weight": [4, 3], "lm_head.weight": [4, 3], "layers.0.q_proj.weight": [3, 3],
    "layers.1.q_proj.weight": [3, 3], "classifier.weight": [2, 3],
}  # fmt: skip
_CONFIG: dict[str, Any] = {
    "model_type": "gpt2", "architectures": ["GPT2Model"], "tie_word_embeddings": True,
    "num_hidden_layers": 2, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1},
    "dtype": "float32", "hidden_size": 3, "problem_type": None,
}  # fmt: skip
_ADAPTER: dict[str, Any] = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"layers.0.q_proj": 2},
    "alpha_pattern": {"q_proj": 8}, "use_rslora": False, "fan_in_fan_out": False, "bias": "none",
    "base_model_name_or_path": "base", "task_type": "SEQ_CLS", "modules_to_save": ["classifier"],
    "init_lora_weights": True, "target_modules": ["q_proj"],
}  # fmt: skip
# Values that a key reads in a way of its own.
_SPECIAL: dict[str, tuple[Any, ...]] = {
    "r": (True, 0, 2.0, 10**400),
    "lora_alpha": (True, float("nan"), 10**400, "4"),
    "rank_pattern": ({"(a+)+": 2}, {"(.*.*)*": 2}, {"(": 1}, {"q_proj": True}, {"": 10**400}),
    "alpha_pattern": ({"q_proj": float("nan")}, {"(x|x)*y": 1.0}, {"(?i)q": 10**400}),
    "base_model_name_or_path": (5, ["base"], {}, "", "\0", "~nobody/x", "model", "a" * 5000),
    "peft_type": (None, 1, ["LORA"], "lora", "IA3"),
    "target_modules": ("(a+)+$", None, 3),
    "modules_to_save": ("(a+)+$", 3, {"a": 1}),
    "model_type": ([], {}, 1, None, "bert", "t5"),
    "architectures": ({}, [], "A", [None], 5, {"0": 1}),
    "tie_word_embeddings": ("no", [], None, 2),
    "id2label": ([], {"x": 1}, {"0": {}}, 7, {"0": None, "1": ["a"]}, {"-1": "a"}),
    "label2id": ([], 7, {"a": []}),
}


def _changed(rng: Random, document: dict[str, Any]) -> Any:
    changed: Any = dict(document)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        special = [key for key in changed if key in _SPECIAL] if isinstance(changed, dict) else []
        if special and rng.random() < 0.5:
            key = rng.choice(special)
            changed[key] = rng.choice(_SPECIAL[key])
        else:
            changed = hostile.change(rng, changed)
    return changed


def make_config(rng: Random, folder: Path) -> None:
    """A base and a tuned model, with a changed config.json each."""
    for name in ("base", "model"):
        (folder / name).mkdir()
        write_safetensors(folder / name / "model.safetensors", _BASE, rng)
        content = hostile.dump(rng, _changed(rng, _CONFIG))
        (folder / name / "config.json").write_bytes(content)


def make_adapter(rng: Random, folder: Path) -> None:
    """A base, and a LoRA adapter with changed settings."""
    (folder / "base").mkdir()
    (folder / "model").mkdir()
    write_safetensors(folder / "base" / "model.safetensors", _BASE, rng)
    prefix, long = "base_model.model.", "a" * 60
    shapes = {
        f"{prefix}{module}.{part}.weight": shape
        for module in ("layers.0.q_proj", "layers.1.q_proj", rng.choice(("layers.1.q_proj", long)))
        for part, shape in (("lora_A", [2, 3]), ("lora_B", [3, 2]))
    } | {f"{prefix}classifier.weight": [2, 3]}
    if rng.random() < 0.2:
        shapes = {
            (hostile.text(rng) if rng.random() < 0.3 else name): shape
            for name, shape in shapes.items()
        }
        shapes = {n.encode(errors="replace").decode(): s for n, s in shapes.items()}
        shapes.pop("__metadata__", None)
    write_safetensors(folder / "model" / "adapter_model.safetensors", shapes, rng)
    settings = _changed(rng, _ADAPTER)
    (folder / "model" / "adapter_config.json").write_bytes(hostile.dump(rng, settings))


def check_settings(folder: Path) -> str:
    """Everything that a command reads before it works: the whole model, vector and plan."""
    from alliage.merging import parse_recipe, plan

    outcomes = []
    with alliage.open(folder / "model", base=folder / "base") as model:
        if model.adapter is not None:
            look_at(folder / "model")
        assert model.base is None or model.base.path == folder / "base"
    with alliage.open(folder / "model") as model:
        try:
            assert model.base is None or model.base.path
        except AlliageError as error:
            outcomes.append(sort(error))
    with alliage.open(folder / "base") as base, alliage.open(folder / "model") as model:
        vector = open_vector(model, base)
        for name, shape in vector.shapes.items():
            vector.block(name, 0, shape[0] if shape else 1)
    look_at(folder / "model")
    content = {"method": "average", "base": str(folder / "base"), "models": [str(folder / "model")]}
    made = plan(parse_recipe(content))
    outcomes += ["planned" if not made.errors else sort(made.errors[0])]
    return f"accepted, {outcomes[-1]}"


_STACKS = {"bert": "encoder.layer", "gpt2": "h", "smollm3": "layers", "modernbert": "layers",
           "gemma3_text": "layers", "unheard-of": "layers"}  # fmt: skip


def make_stack(rng: Random, folder: Path) -> None:
    """A model of three layers, whose config.json speaks of single layers in changed words."""
    family = rng.choice(tuple(_STACKS))
    config = _CONFIG | {
        "model_type": family, "num_hidden_layers": 3, "n_layer": 3, "n_layers": 3,
        "layer_types": ["full_attention"] * 3, "no_rope_layers": [1, 1, 0],
        "no_rope_layer_interval": 4, "global_attn_every_n_layers": 3, "sliding_window_pattern": 6,
        "pruned_heads": {"1": [0]}, "mlp_only_layers": [2], "max_window_layers": 2,
        "out_features": None, "quantization_config": None, "use_sliding_window": True,
    }  # fmt: skip
    config = {key: config[key] for key in config if rng.random() < 0.7 or key == "model_type"}
    (folder / "model").mkdir()
    shapes = {f"{_STACKS[family]}.{layer}.weight": [2, 2] for layer in range(3)}
    write_safetensors(folder / "model" / "model.safetensors", shapes, rng)
    (folder / "model" / "config.json").write_bytes(hostile.dump(rng, _changed(rng, config)))


def check_stack(folder: Path) -> str:
    """Planning to remove a layer: a configuration for two layers, or a reason why not."""
    from alliage.pruning import plan

    with alliage.open(folder / "model") as model:
        made = plan(model, keep_layers=[0, 2])
    assert list(made.keep) == [0, 2]
    return "planned"
