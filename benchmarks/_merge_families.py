"""The models of merge_quality: eight tasks tuned from one base, and what merges know of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks._real_data import DATA, alliage, encoder_folder

SEEDS = (0, 1, 2)
_IMAGES = (
    "mnist", "fashion_mnist", "kmnist", "kannada_mnist", "usps", "pneumonia_mnist", "sign_digits",
    "omniglot_alphabets",
)  # fmt: skip
_TEXTS = ("sst2", "subj", "trec", "ag_news", "banking77", "sick", "uci_sentences", "snips")
_SNIPS = {
    "kind": "sequence-classification",
    "files": {
        split: f"data/snips/{file}"
        for split, file in {
            "train": "train.jsonl.gz", "validation": "validation.jsonl", "test": "test.jsonl"
        }.items()
    },
    "columns": {"text": "text", "label": "intent"},
}  # fmt: skip
_VISION = {
    "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 192,
    "image_size": 32, "patch_size": 4, "num_channels": 1, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "initializer_range": 96**-0.5,
}  # fmt: skip
# What is also searched, on labels, with a method's name behind.
_SCALED = ("task_arithmetic", "ties")
_SCALES = {"scale": {"low": 0.1, "high": 1.0, "step": 0.1}}
SEARCHED: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(_SCALED, _SCALES),
    "wudi": {"rate": [1e-5, 3e-5, 1e-4, 3e-4]},
}
SEARCHED_ON = 100  # validation examples of each task
_SECONDS = "seconds.json"
UNLABELLED = 1000  # images of each set that the base learns from
_BASE = {"epochs": 5, "batch_size": 32, "warmup": 0.1, "learning_rate": 5e-4}
_OF_IMAGES = {
    "epochs": 4, "batch_size": 32, "warmup": 0.1, "learning_rate": 3e-4, "train_limit": 2000,
    "head_epochs": 2, "head_learning_rate": 1e-2,
}  # fmt: skip
_OF_TEXTS = {
    "epochs": 2, "batch_size": 16, "warmup": 0.1, "max_length": 48, "train_limit": 1000,
    "head_epochs": 2, "head_learning_rate": 1e-2,
}  # fmt: skip
_LORA = {
    "method": "lora",
    "learning_rate": 1e-3,
    "lora": {"rank": 8, "alpha": 16, "targets": ["query", "value"]},
}


class Family(NamedTuple):
    """Models that share a base.

    Attributes:
        title: of the table.
        base: its folder.
        tasks: name -> what is given to the commands.
        recipe: how each model is tuned, without its task and seed.
        scored: at most so many examples of each task.
        searched: the methods that are also searched.
        steps: of AdaMerging; 0: without it.
        known: training examples of each task that Fisher and Gram matrices are of.
        labels: that Fisher matrices are of, expected or sampled.
    """

    title: str
    base: str
    tasks: Mapping[str, str]
    recipe: Mapping[str, Any]
    scored: int
    searched: Sequence[str]
    steps: int
    known: int
    labels: str

    @property
    def searches(self) -> dict[str, str]:
        """What `alliage search` is told, by the name in the table."""
        learned = f"--steps {self.steps} --limit {self.scored} --batch-size 8"
        searches = {
            f"{method}_searched": f"--space space-{method}.yml --limit {SEARCHED_ON}"
            for method in self.searched
        }
        if self.steps:
            for by in ("task", "layer"):
                searches[f"ada_merging_{by}"] = f"--ada-merging {by} {learned}"
        return searches


_IMAGE_TASKS = {name: f"data/{name}" for name in _IMAGES}
_TEXT_TASKS = {name: f"data/{name}" for name in _TEXTS if name != "snips"} | {"snips": "snips.yml"}
FAMILIES = {
    "images": Family(
        title="images, in full",
        base="base",
        tasks=_IMAGE_TASKS,
        recipe=_OF_IMAGES,
        scored=400,
        searched=tuple(SEARCHED),
        steps=300,
        known=256,
        labels="expected",
    ),
    "texts-full": Family(
        title="texts, in full",
        base="encoder",
        tasks=_TEXT_TASKS,
        recipe=_OF_TEXTS | {"learning_rate": 1e-4},
        scored=200,
        searched=_SCALED,
        steps=0,
        known=256,
        labels="sampled",
    ),
    "texts-lora": Family(
        title="texts, LoRA",
        base="encoder",
        tasks=_TEXT_TASKS,
        recipe=_OF_TEXTS | _LORA,
        scored=100,
        searched=(),
        steps=0,
        known=64,
        labels="sampled",
    ),
}


def prepare(family: Family, home: Path, *, known: bool = True) -> None:
    """The base, a model for each task and seed, and, if `known`, what merges need to know of them.

    What is there is not made again.
    """
    for link, target in (("encoder", encoder_folder()), ("data", DATA.resolve())):
        if not (home / link).exists():
            (home / link).symlink_to(target)
    (home / "snips.yml").write_text(yaml.safe_dump(_SNIPS))
    if family.base == "base" and not (home / "base").exists():
        _make_image_base(home)
    for method in family.searched:
        space = {"method": method, "parameters": dict(SEARCHED[method])}
        (home / f"space-{method}.yml").write_text(yaml.safe_dump({"search": space}))
    tuned, collected = [], []
    for seed in SEEDS:
        for task, ref in family.tasks.items():
            model = f"{task}-{seed}"
            recipe = home / f"tune-{model}.yml"
            content = {"model": family.base, "task": ref, "seed": seed, **family.recipe}
            recipe.write_text(yaml.safe_dump(content))
            tuned.append((model, f"tune {recipe.name} -o {model}"))
            for kind, more in (("fisher", f" --labels {family.labels}"), ("regmean", "")):
                out = f"{model}/{kind}.safetensors"
                options = f"--task {ref} --examples {family.known}{more} -o {out}"
                collected.append((out, f"statistics {kind} {model} {options}"))
        models = " ".join(f"{task}-{seed}" for task in family.tasks)
        tasks = " ".join(f"--task {ref}" for ref in family.tasks.values())
        options = f"{tasks} --examples {family.known} -o regmean++-{seed}"
        collected.append((f"regmean++-{seed}", f"statistics regmean++ {models} {options}"))
        together = {"method": "task_arithmetic", "base": family.base, "models": models.split()}
        (home / f"together-{seed}.yml").write_text(yaml.safe_dump(together))
        for method, options in family.searches.items():
            found = f"{method}-{seed}-found"
            options += f" {tasks} --seed {seed} --threads 1 -o {found}"
            collected.append((f"{found}/best.yml", f"search together-{seed}.yml {options}"))
    seconds = preparation(home)
    for stage in (tuned, collected) if known else (tuned,):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lacking = [(out, words) for out, words in stage if not (home / out).exists()]
            runs = pool.map(lambda words: alliage(words, home), [words for _, words in lacking])
            for (out, _), done in zip(lacking, runs, strict=True):
                print(f"$ {done.command}\n{done.printed}", flush=True)
                seconds[out] = done.seconds
                (home / _SECONDS).write_text(json.dumps(seconds))


def preparation(home: Path) -> dict[str, float]:
    """How many seconds each model, statistics file and search took, by its path in the home."""
    stored = home / _SECONDS
    return dict(json.loads(stored.read_text())) if stored.exists() else {}


def _make_image_base(home: Path) -> None:
    """A vision transformer that tells which way up the images of all tasks are."""
    import numpy as np
    from transformers import ViTConfig, ViTForImageClassification, set_seed
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    random = np.random.default_rng(0)
    images = []
    for task in _IMAGES:
        with np.load(DATA / task / "train.npz") as archive:
            shown = archive["images"]
        images.append(shown[random.permutation(len(shown))[:UNLABELLED]])
    upright = np.concatenate(images)
    turns = random.integers(4, size=len(upright))
    turned = np.stack([np.rot90(one, turn) for one, turn in zip(upright, turns, strict=True)])
    (home / "turned").mkdir()
    order = random.permutation(len(turned))
    cut = len(order) // 10
    for split, part in (("validation", order[:cut]), ("train", order[cut:])):
        np.savez(
            home / "turned" / f"{split}.npz",
            images=turned[part], labels=turns[part].astype(np.uint8),
            class_names=np.array(["0", "90", "180", "270"]),
        )  # fmt: skip
    set_seed(0)
    ViTForImageClassification(ViTConfig(**_VISION)).save_pretrained(home / "untrained")
    recipe = {"model": "untrained", "task": "turned", **_BASE}
    (home / "tune-base.yml").write_text(yaml.safe_dump(recipe))
    print(alliage("tune tune-base.yml -o base", home, threads=os.cpu_count() or 1).printed)
