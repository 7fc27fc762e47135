"""Fine-tuning recipes: full models and adapters from a base and a task."""

from alliage.tuning.recipe import LoraSettings, TuneRecipe, load_recipe, parse_recipe
from alliage.tuning.tuner import TuneRecord, tune

__all__ = ["LoraSettings", "TuneRecipe", "TuneRecord", "load_recipe", "parse_recipe", "tune"]
