"""Each tensor's parameters, from mergekit's YAML: mergekit's own planner's and ours."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from alliage.errors import UsageError
from alliage.merging.recipe.mergekit import from_mergekit
from alliage.merging.recipe.parameters import depth_of
from tests.real.peers import SCRIPTS

pytestmark = pytest.mark.real

LAYERS = 5
OURS = {
    "lambda": "scale", "select_topk": "density", "normalize_weights": "normalize",
    "nuslerp_flatten": "flatten", "nuslerp_row_wise": "columns", "tol": "tolerance",
}  # fmt: skip
COMBINE = {True: "signed_mean", False: "sum"}
RESCALE = {True: "l1", False: "none"}
SHARED = {
    "linear": ("normalize",),
    "task_arithmetic": ("lambda",),
    "ties": ("lambda", "normalize"),
    "dare_ties": ("lambda", "normalize", "rescale"),
    "dare_linear": ("lambda", "rescale"),
    "della": ("lambda", "normalize", "rescale"),
    "della_linear": ("lambda", "rescale"),
    "breadcrumbs": ("lambda",),
    "breadcrumbs_ties": ("lambda", "normalize"),
    "sce": ("select_topk",),
    "ram": ("epsilon",),
    "ramplus_tl": ("epsilon", "r", "alpha"),
    "slerp": ("t",),
    "nearswap": ("t",),
    "arcee_fusion": (),
    "nuslerp": ("nuslerp_flatten", "nuslerp_row_wise"),
    "multislerp": ("normalize_weights",),
    "karcher": ("tol",),
    "model_stock": ("filter_wise",),
    "passthrough": (),
}
OWN: dict[str, tuple[str, ...]] = {
    "linear": ("weight",), "task_arithmetic": ("weight",), "passthrough": ("scale",),
    "della": ("weight", "density", "epsilon"), "della_linear": ("weight", "density", "epsilon"),
    "breadcrumbs": ("weight", "density", "gamma"),
    "breadcrumbs_ties": ("weight", "density", "gamma"),
    "nuslerp": ("weight",), "multislerp": ("weight",),
    **dict.fromkeys(("sce", "ram", "ramplus_tl", "slerp", "nearswap", "arcee_fusion"), ()),
    **dict.fromkeys(("karcher", "model_stock"), ()),
}  # fmt: skip
PAIRS = ("slerp", "nearswap", "arcee_fusion")
SWITCHES = (
    "normalize", "rescale", "normalize_weights", "nuslerp_flatten", "nuslerp_row_wise",
    "filter_wise",
)  # fmt: skip
FILTERS = ("mlp", "self_attn", "layers.1.", "layers.3", "norm", "embed", "lm_head", "*", "q_proj")


@pytest.fixture(scope="module")
def llamas(tmp_path_factory) -> list[str]:
    """The folders of a base and three models like it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    home = tmp_path_factory.mktemp("llamas")
    config = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=LAYERS, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=16, tie_word_embeddings=False,
    )  # fmt: skip
    for name in ("base", "x", "y", "z"):
        LlamaForCausalLM(config).save_pretrained(home / name)
    return [str(home / name) for name in ("base", "x", "y", "z")]


class Writer:
    """Writes mergekit recipes at random, in every form that a setting may have."""

    def __init__(self, seed: int, llamas: list[str]) -> None:
        self.random = random.Random(seed)
        self.base, *self.models = llamas

    def plain(self, name: str) -> Any:
        if name in SWITCHES:
            return self.random.choice([True, False, 1, 0, "yes", "off"])
        number = round(self.random.uniform(0.1, 1), 3)
        return self.random.choice([number, number, 1, f"{number}e0"])

    def gradient(self, name: str) -> Any:
        return [self.plain(name) for _ in range(self.random.randint(1, 5))]

    def rules(self, name: str) -> Any:
        form = self.random.choice([self.plain, self.gradient])
        rules = [
            {"filter": self.random.choice(FILTERS), "value": form(name)}
            for _ in range(self.random.randint(1, 3))
        ]
        return self.random.choice([rules, rules[0]])

    def settings(self, names: tuple[str, ...], chance: float = 0.5) -> dict[str, Any]:
        return {
            name: self.random.choice([self.plain, self.gradient, self.rules])(name)
            for name in names
            if self.random.random() < chance
        }

    def recipe(self) -> dict[str, Any]:
        method = self.random.choice(list(SHARED))
        own = OWN.get(method, ("weight", "density"))
        count = 1 if method in (*PAIRS, "passthrough") else self.random.randint(1, 3)
        count = {"nuslerp": 2, "model_stock": max(2, count)}.get(method, count)
        with_base = method not in ("linear", "passthrough")
        if method in ("nuslerp", "multislerp", "karcher"):
            with_base = self.random.random() < 0.5
        content: dict[str, Any] = {"merge_method": method, "dtype": "float32"}
        if with_base:
            content["base_model"] = self.base
        both = own + SHARED[method]
        content["parameters"] = self.settings(both)
        # The last resort, since mergekit has no default for these.
        for name in {"weight", "t"} & set(both):
            given = content["parameters"].get(name, [])
            rules = [given] if isinstance(given, dict) else given
            if not isinstance(rules, list):
                continue
            if all(isinstance(rule, dict) for rule in rules):
                content["parameters"][name] = [*rules, {"value": self.plain(name)}]

        def entries(**more: Any) -> list[dict[str, Any]]:
            chosen = self.random.sample(self.models, count) + [self.base] * with_base
            self.random.shuffle(chosen)
            return [{"model": each, "parameters": self.settings(own), **more} for each in chosen]

        body: dict[str, Any] = {}
        if self.random.random() < 0.5:
            body["models"] = entries()
        else:
            cuts = self.random.choice([[(0, 5)], [(0, 2), (2, 5)], [(0, 1), (1, 4), (2, 4)]])
            body["slices"] = [
                {"sources": entries(layer_range=[*cut]), "parameters": self.settings(both)}
                for cut in cuts
            ]
        if self.random.random() < 0.3:
            inner = {"default": {**body, "parameters": self.settings(both)}}
            return {**content, "modules": inner}
        return {**content, **body}


def expected(tensor: dict[str, Any], method: str) -> dict[str, Any]:
    """mergekit's parameters of a tensor, as ours are named and ordered."""
    found: dict[str, Any] = {}
    for name in SHARED[method]:
        value = tensor["shared"][name]
        if name == "normalize" and method != "linear":
            found["combine"] = COMBINE[value]
        else:
            found[OURS.get(name, name)] = RESCALE[value] if name == "rescale" else value
    values = [tensor["own"][model] for model in tensor["models"] if tensor["own"][model]]
    for name in ("weight", "density", "epsilon", "gamma", "scale"):
        if values and name in values[0] and (name != "density" or method != "task_arithmetic"):
            # mergekit's passthrough has no scale by default, which is a scale of 1
            found[name] = [1.0 if each[name] is None else each[name] for each in values]
    return found


def ours(content: dict[str, Any], tensors: list[str]) -> dict[str, dict[str, Any]]:
    """Our arguments of every tensor of the output."""
    recipe = from_mergekit(content, "merge.yml")
    lengths = [part.length for part in recipe.slices] or [LAYERS]
    found = {}
    for name in tensors:
        match = re.search(r"layers\.(\d+)\.", name)
        index, first = 0, 0
        if match is not None:
            while first + lengths[index] <= int(match[1]):
                first, index = first + lengths[index], index + 1
        elif "embed" not in name:
            index = len(lengths) - 1
        sources = []
        if match is not None and recipe.slices:
            inside = int(match[1]) - first
            sources = [
                name.replace(match[0], f"layers.{entry.layers[0] + inside}.")
                for entry in recipe.slices[index].models
            ]
        found[name] = recipe.arguments_for(
            name,
            depth_of(name, lengths[index], first=first, dialect="mergekit"),
            slice_index=index if recipe.slices else None,
            sources=sources,
        )
    return found


def ask(peers, contents: list[Any], folder: Path) -> list[dict[str, Any]]:
    (folder / "in.json").write_text(json.dumps(contents))
    peers.run("python", SCRIPTS / "plan_mergekit.py", folder / "in.json", folder / "out.json")
    return json.loads((folder / "out.json").read_text())


def test_every_tensor_has_mergekits_parameters(peers, llamas, tmp_path):
    contents = [Writer(seed, llamas).recipe() for seed in range(300)]
    compared = 0
    for content, planned in zip(contents, ask(peers, contents, tmp_path), strict=True):
        assert "error" not in planned, (content, planned)
        try:
            found = ours(content, list(planned))
        except UsageError as error:  # what mergekit accepts and skips
            raise AssertionError((content, str(error))) from None
        for name, tensor in planned.items():
            wanted = expected(tensor, content["merge_method"])
            assert {key: found[name][key] for key in wanted} == wanted, (content, name)
            compared += len(wanted)
    assert compared > 10_000


def test_what_mergekit_refuses_is_refused(peers, llamas, tmp_path):
    base, x, y, z = llamas
    models = [{"model": x, "parameters": {"weight": 1}}]
    contents = [
        {"merge_method": "ties", "models": models},
        {"merge_method": "ties", "base_model": base, "models": [{"model": x}]},
        {"merge_method": "ties", "base_model": base, "models": models * 2},
        {"merge_method": "linear", "base_model": base, "models": models},
        {"merge_method": "slerp", "base_model": base, "models": [{"model": x}]},
        {
            "merge_method": "slerp",
            "base_model": base,
            "models": [{"model": x}, {"model": y}],
            "parameters": {"t": 0.5},
        },
        {"merge_method": "passthrough", "models": [{"model": x}, {"model": y}]},
        {"merge_method": "passthrough", "base_model": base, "models": [{"model": x}]},
        {"merge_method": "nosuch", "models": models},
        {"merge_method": "nuslerp", "models": models},
        {"merge_method": "nuslerp", "base_model": base, "models": models},
        {"merge_method": "multislerp", "models": [{"model": x}, {"model": y}]},
        {"merge_method": "model_stock", "base_model": base, "models": [{"model": x}]},
        {"merge_method": "model_stock", "models": [{"model": x}, {"model": y}, {"model": z}]},
        {"merge_method": "linear"},
        {"merge_method": "linear", "models": models, "slices": [{"sources": []}]},
        {"merge_method": "linear", "models": [{"model": x, "parameters": {"weight": "z"}}]},
        {
            "merge_method": "ties",
            "base_model": base,
            "slices": [{"sources": [{"model": z, "layer_range": [0, 2]}]}],
            "parameters": {"weight": 1},
        },
    ]
    for content, planned in zip(contents, ask(peers, contents, tmp_path), strict=True):
        assert "error" in planned, content
        assert "abstract" not in planned["error"], planned
        with pytest.raises(UsageError):
            from_mergekit(content, "merge.yml")
