"""Settings of published studies, as defaults of a recipe: `preset: fosse-2024`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """What a study says of its training.

    Attributes:
        source: the document, and where in it.
        settings: keys of `TuneRecipe` for every method.
        methods: further keys by method; only these methods were used.
        silent: what the document does not say, and what stands for it.
    """

    source: str
    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    silent: str


PRESETS: Mapping[str, Preset] = {
    "fosse-2024": Preset(
        source="Fosse 2024, tuning of roberta-base: 20 epochs, early stopping on the validation "
        "loss with patience 5; LoRA on queries and values. On GLUE 10 % of train is cut "
        "off for that loss, and scores are of the official validation split: set validation: "
        "hold-out in the task, as a preset cannot.",
        settings={"batch_size": 20, "epochs": 20, "patience": 5, "group_by_length": False},
        methods={
            "full": {"learning_rate": 2e-5},
            "lora": {
                "learning_rate": 1e-4,
                "lora": {"rank": 8, "alpha": 16, "targets": ("query", "value")},
            },
        },
        silent="Schedule and weight decay: the Trainer's own, linear to 0 and none. Batches of "
        "LoRA: those of full tuning. Order of examples: random, whatever their length.",
    ),
    "cui-2024": Preset(
        source="Cui 2024, section 3.2.2 (LoRA) and table 4.9 (column F1, epoch=3), tuning of "
        "CamemBERT with the author's train_token_classification.py and transformers' Trainer "
        "(section 3.1).",
        settings={"epochs": 3, "group_by_length": False},
        methods={
            "full": {"batch_size": 8, "learning_rate": 5e-5},
            "lora": {
                "batch_size": 8,
                "learning_rate": 5e-5,
                "lora": {"rank": 8, "alpha": 32, "dropout": 0.1, "targets": ("query", "value")},
            },
        },
        silent="Batch size and learning rate: the Trainer's defaults, 8 and 5e-5, for both "
        "methods. Length: the model's own limit. Order of examples: random, whatever their "
        "length.",
    ),
    "yadav-2023": Preset(
        source="Yadav 2023 (TIES-Merging), appendix C.6: T5-base and T5-large in full, T0-3B with "
        "(IA)3; no schedule and no weight decay.",
        settings={
            "learning_rate": 1e-4,
            "schedule": {"name": "constant"},
            "weight_decay": 0.0,
            "max_steps": 75_000,
            "group_by_length": False,
        },
        methods={
            "full": {
                "batch_size": 1024,
                "gradient_accumulation": 32,
                "eval_every": 100,
                "patience": 5,
                "precision": "bfloat16",
                "max_length": 128,
            },
            "ia3": {"batch_size": 16, "eval_batch_size": 32, "eval_every": 100, "patience": 10},
        },
        silent="Steps between two looks at the validation loss: 100. Of (IA)3 the most steps: "
        "those of full tuning. A step's 1024 examples go through the model in 32 parts. "
        "Order of examples: random, whatever their length.",
    ),
}
