"""The tuning recipe: YAML or keywords, checked before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alliage import recipes
from alliage.data.digits import PREFIX as BUILT_IN

_LEARNING_RATES = {"full": 2e-5, "lora": 1e-4}


class LoraSettings(BaseModel):
    """Low-rank adaptation (arXiv:2106.09685)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=8, ge=1, description="r of B [d_out, r] and A [r, d_in].")
    alpha: float = Field(default=16.0, gt=0, description="The update is α/r · B·A.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="On the inputs of A.")
    targets: tuple[str, ...] = Field(
        default=("query", "value"),
        min_length=1,
        description="Kinds of modules (query, key, value, output, mlp, qkv), or module names.",
    )
    rank_stabilised: bool = Field(
        default=False, description="α/√r instead (rsLoRA, arXiv:2312.03732)."
    )


class TuneRecipe(BaseModel):
    """What to tune, on what, and how. Defaults: the settings of task-vector studies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The base: a folder or a hub id.")
    task: str = Field(description="A folder, a YAML file or a built-in name.")
    method: Literal["full", "lora"] = Field(default="full", description="Which weights move.")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the train split.")
    batch_size: int = Field(default=32, ge=1, description="Examples in one step.")
    learning_rate: float | None = Field(
        default=None, gt=0, description="At its peak; 2e-5 for full, 1e-4 for lora by default."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled, of AdamW (arXiv:1711.05101)."
    )
    warmup: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of steps in which the rate rises; then it falls to 0.",
    )
    head_epochs: float = Field(
        0.0,
        ge=0,
        description="Epochs in which only the head moves, before the others (LP-FT, "
        "arXiv:2202.10054): the body then leaves its base less.",
    )
    head_learning_rate: float = Field(1e-3, gt=0, description="In those epochs.")
    seed: int = Field(
        default=0, ge=0, description="Of the head, the order of examples and dropout."
    )
    max_length: int | None = Field(
        default=None, ge=1, description="Tokens of a text; the model's own limit by default."
    )
    train_limit: int | None = Field(
        default=None, ge=1, description="Train on a random part of this size."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop when the validation loss has not fallen for so many epochs, "
        "and keep the best epoch; off by default.",
    )
    lora: LoraSettings = Field(default=LoraSettings(), description="Used by method: lora.")

    @model_validator(mode="after")
    def _lora_goes_with_lora(self) -> Self:
        if self.method != "lora" and "lora" in self.model_fields_set:
            raise ValueError("lora is set, but method is full; write method: lora, or leave it out")
        return self

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, its default filled in."""
        return self.learning_rate or _LEARNING_RATES[self.method]


def load_recipe(path: str | Path) -> TuneRecipe:
    """Read a recipe from a YAML file; its relative paths become relative to the file.

    Raises:
        UsageError: the file cannot be read or the recipe is wrong; all problems at once.
    """
    path = Path(path)
    recipe = parse_recipe(recipes.read_yaml(path), where=str(path))
    return recipe.model_copy(
        update={
            "model": _resolve(path.parent, recipe.model),
            "task": _resolve(path.parent, recipe.task),
        }
    )


def parse_recipe(content: Any, *, where: str = "recipe") -> TuneRecipe:
    """Check a recipe's content.

    Raises:
        UsageError: unknown keys, missing keys, wrong values; all problems at once.
    """
    return recipes.parse(content, TuneRecipe, where)


def _resolve(folder: Path, ref: str) -> str:
    """A local path counts from the recipe's folder; hub ids and built-in names stay."""
    if ref.startswith(BUILT_IN):
        return ref
    return recipes.resolve(folder, ref)
