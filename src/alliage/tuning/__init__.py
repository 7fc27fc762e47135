"""Fine-tuning recipes: full models and adapters from a base and a task; adapters out of models."""

from alliage.tuning.extraction import ExtractionRecord, extract
from alliage.tuning.recipe import LoraSettings, TuneRecipe, load_recipe, parse_recipe
from alliage.tuning.tuner import TuneRecord, tune

__all__ = [
    "ExtractionRecord",
    "LoraSettings",
    "TuneRecipe",
    "TuneRecord",
    "extract",
    "load_recipe",
    "parse_recipe",
    "tune",
]
