"""The demo's models: a vision transformer trained on the spot, and what is tuned from it.

Real images that ship with scikit-learn (`alliage.data.digits`); no download.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from alliage.checkpoints import provenance
from alliage.checkpoints.card import model_card
from alliage.checkpoints.writer import OutputFolder
from alliage.data import Example, load_task
from alliage.data.encoding import ImageEncoder
from alliage.evaluation.quiet import quiet_transformers
from alliage.tuning import LoraSettings, TuneRecipe

OnEvent = Callable[[str, int, int], None]

TASKS = (
    "digits:digit",
    "digits:parity",
    "digits:at-least-five",
    "digits:prime",
    "digits:multiple-of-three",
    "digits:loop",
    "digits:straight",
    "digits:rotation",
    "digits:mirror",
)
METHODS = ("full", "lora")

_PRETRAIN = "digits:pretrain"
_ARCHITECTURE = {
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "hidden_size": 48,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "initializer_range": 0.2,  # about 1/√48: with ViT's 0.02 so narrow a stack hardly starts
}
_BASE_SETTINGS = {
    "epochs": 40,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "warmup": 0.15,
    "seed": 0,
}
# The head comes first: heads that grew up with their body fit no merged one.
_COMMON = {"batch_size": 32, "warmup": 0.1, "head_epochs": 8, "head_learning_rate": 1e-2}
_TUNE_SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"epochs": 3, "learning_rate": 3e-4},
    "lora": {
        "epochs": 4,
        "learning_rate": 5e-3,
        "lora": LoraSettings(rank=8, alpha=16),
    },
}


def model_name(task: str, method: str) -> str:
    """The folder of a task's model: "parity", "parity-lora"."""
    short = task.partition(":")[2]
    return short if method == "full" else f"{short}-lora"


def tune_recipe(base: str | Path, task: str, method: str) -> TuneRecipe:
    """The recipe of one of the demo's models.

    Args:
        base: what `train_base` made.
        task: one of `TASKS`.
        method: one of `METHODS`.
    """
    return TuneRecipe(
        model=str(base),
        task=task,
        method=method,  # type: ignore[arg-type]  # checked by pydantic
        **(_COMMON | _TUNE_SETTINGS[method]),
    )


def train_base(out: str | Path, *, on_event: OnEvent | None = None) -> None:
    """Train the common ancestor from scratch and save its body without a head.

    A 12-layer ViT on the ten digits of the first half of the images, shifted at random by up to
    one pixel; AdamW with a triangular schedule. The same bytes each time.

    Args:
        out: the new folder.
        on_event: called with ("training the base", step, steps).

    Raises:
        UsageError: `out` exists.
    """
    from transformers import ViTConfig, ViTForImageClassification

    task = load_task(_PRETRAIN)
    examples = [*task.splits["train"], *task.splits["validation"]]
    with OutputFolder(out) as folder, torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(_BASE_SETTINGS["seed"])
        config = ViTConfig(**_ARCHITECTURE, num_labels=len(task.labels))
        model = ViTForImageClassification(config)
        _fit(model, examples, on_event or (lambda *_: None))
        model.vit.save_pretrained(folder.staging)
        record = provenance.describe(
            "demo",
            {"task": _PRETRAIN, **_BASE_SETTINGS, "architecture": _ARCHITECTURE},
            [],
            folder.staging,
        )
        folder.add_json(provenance.FILE, record)
        summary = "A vision transformer trained from scratch on one half of scikit-learn's digits."
        folder.add_text("README.md", model_card(folder.out.name, summary, record))


def _fit(model: Any, examples: Sequence[Example], on_event: OnEvent) -> None:
    batch = ImageEncoder(model.config, {}).collate(ImageEncoder(model.config, {}).encode(examples))
    images, labels = batch["pixel_values"], batch["labels"]
    size, rate = int(_BASE_SETTINGS["batch_size"]), float(_BASE_SETTINGS["learning_rate"])
    per_epoch = len(labels) // size
    steps = int(_BASE_SETTINGS["epochs"]) * per_epoch
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=_BASE_SETTINGS["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, pct_start=_BASE_SETTINGS["warmup"]
    )
    model.train()
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(labels))
        start = step % per_epoch * size
        chosen = order[start : start + size]
        shift = torch.randint(-1, 2, (2,)).tolist()
        shifted = torch.roll(images[chosen], shift, dims=(2, 3))
        loss = torch.nn.functional.cross_entropy(model(pixel_values=shifted).logits, labels[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        on_event("training the base", step + 1, steps)
    model.eval()
