"""Fine-tuning recipes: full models and adapters from a base and a task; adapters out of models."""

from alliage.tuning.extraction import ExtractionRecord, extract
from alliage.tuning.figures import Evaluation, TuneRecord
from alliage.tuning.presets import PRESETS
from alliage.tuning.recipe import (
    Ia3Settings,
    LoraSettings,
    TuneRecipe,
    load_recipe,
    parse_recipe,
)
from alliage.tuning.tuner import tune

__all__ = [
    "PRESETS",
    "Evaluation",
    "ExtractionRecord",
    "Ia3Settings",
    "LoraSettings",
    "TuneRecipe",
    "TuneRecord",
    "extract",
    "load_recipe",
    "parse_recipe",
    "tune",
]
