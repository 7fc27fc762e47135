"""transformers' Trainer as it is run without Alliage: the other side of tuning benchmarks."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import alliage
from alliage.data import load_task
from alliage.data.encoding import IGNORED, encoder_for
from alliage.evaluation.models import load_model

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def train(
    settings: Mapping[str, Any], out: Path | None = None, *, width: int | None = None
) -> float:
    """Train on the examples that a recipe chooses, encoded beforehand as Alliage encodes them.

    Args:
        settings: keys of a recipe: model, task, method (full or lora), epochs, batch_size,
            learning_rate, seed, train_limit and max_length.
        out: where the model goes; nothing to forget it.
        width: pad every batch to so many tokens; to its own longest by default.

    Returns:
        seconds of `Trainer.train`.
    """
    from transformers import PrinterCallback, Trainer, TrainingArguments

    task = load_task(settings["task"])
    seed = settings["seed"]
    chosen = task.examples("train", limit=settings["train_limit"], seed=seed)
    with alliage.open(settings["model"]) as base, tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(seed)
        model, _ = load_model(base, task.kind, task.labels, head={})
        if settings["method"] == "lora":
            model = _with_lora(model)
        encoder: Any = encoder_for(task.kind, base, model.config, max_length=settings["max_length"])
        arguments = TrainingArguments(
            scratch, num_train_epochs=settings["epochs"], learning_rate=settings["learning_rate"],
            per_device_train_batch_size=settings["batch_size"], seed=seed, data_seed=seed,
            remove_unused_columns=False, save_strategy="no", logging_strategy="no",
            report_to="none", disable_tqdm=True, dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        collate = encoder.collate if width is None else _padded_to(width, encoder)
        trainer = Trainer(model, arguments, collate, train_dataset=encoder.encode(chosen))
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        if out is not None:
            model.save_pretrained(out)
            for name in TOKENIZER:
                file = Path(settings["model"]) / name
                if file.exists():
                    shutil.copyfile(file, out / name)
    return seconds


def _with_lora(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            r=8, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["classifier"]
        ),
    )


def _padded_to(width: int, encoder: Any) -> Any:
    def collate(encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(encoder.collate(encoded))
        fill = {"labels": IGNORED, "input_ids": encoder.tokenizer.pad_token_id}
        for name, tensor in batch.items():
            missing = (0, width - tensor.shape[1])
            batch[name] = torch.nn.functional.pad(tensor, missing, value=fill.get(name, 0))
        return batch

    return collate
