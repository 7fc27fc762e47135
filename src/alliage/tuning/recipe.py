"""The tuning recipe: YAML or keywords, checked before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from alliage import recipes
from alliage.data.digits import PREFIX as BUILT_IN
from alliage.errors import nearest
from alliage.tuning.presets import PRESETS
from alliage.tuning.science import reference
from alliage.tuning.science.clipping import ClippingSettings
from alliage.tuning.science.deficits import DeficitSettings
from alliage.tuning.science.dropout import DropoutSettings
from alliage.tuning.science.fisher_trace import FisherTraceSettings
from alliage.tuning.science.hyperspherical import HypersphericalSettings
from alliage.tuning.science.initialisation import InitialisationSettings
from alliage.tuning.science.optimizers import OptimizerSettings
from alliage.tuning.science.reference import ReferenceSettings
from alliage.tuning.science.schedules import ScheduleSettings
from alliage.tuning.science.stochastic_depth import StochasticDepthSettings

_LEARNING_RATES = {"full": 2e-5, "lora": 1e-4, "ia3": 3e-3}
# Either says how long training lasts.
_LENGTHS = ("epochs", "max_steps")
# Noam decides them itself.
_OF_NOAM = {"learning_rate", "warmup"}


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


class Ia3Settings(BaseModel):
    """Learned scales of activations, (IA)3 (arXiv:2205.05638)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Kinds of modules, or module names, whose outputs are scaled; by default what "
        "PEFT has for the architecture, else key and value.",
    )
    feedforward: tuple[str, ...] | None = Field(
        default=None,
        description="Kinds or names of modules whose inputs are scaled; by default what PEFT has "
        "for the architecture, else the last linear module of each feed-forward block.",
    )


class TuneRecipe(BaseModel):
    """What to tune, on what, and how. Defaults: the settings of task-vector studies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        description="The base: a folder, a hub id, or reference:NAME for one "
        "that starts at random (vit, convnext, bert, blocks)."
    )
    task: str = Field(description="A folder, a YAML file or a built-in name.")
    preset: str | None = Field(
        default=None,
        description="A published study whose settings stand for keys that are not given: "
        + ", ".join(PRESETS),
    )
    method: Literal["full", "lora", "ia3"] = Field(
        default="full", description="Which weights move."
    )
    epochs: float = Field(default=3.0, gt=0, description="Passes over the train split.")
    max_steps: int | None = Field(
        default=None, ge=1, description="Steps of the optimiser, in place of epochs."
    )
    batch_size: int = Field(default=32, ge=1, description="Examples in one step.")
    gradient_accumulation: int = Field(
        default=1,
        ge=1,
        description="Parts in which a step's examples go through the model, to save memory; "
        "divides batch_size.",
    )
    eval_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Examples in one pass of validation; as many as in training by default.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="At its peak; 2e-5 for full, 1e-4 for lora, 3e-3 for ia3 by default.",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="Decoupled for the default AdamW (arXiv:1711.05101); see optimizer.",
    )
    warmup: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of steps in which the rate rises; then it falls to 0, or as schedule "
        "says.",
    )
    head_epochs: float = Field(
        0.0,
        ge=0,
        description="Epochs in which only the head moves, before the others (LP-FT, "
        "arXiv:2202.10054): the body then leaves its base less.",
    )
    head_learning_rate: float = Field(1e-3, gt=0, description="In those epochs.")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Of activations and gradients; bfloat16 is mixed precision, weights and "
        "optimiser stay float32.",
    )
    seed: int = Field(
        default=0, ge=0, description="Of the head, the order of examples and dropout."
    )
    max_length: int | None = Field(
        default=None, ge=1, description="Tokens of a text; the model's own limit by default."
    )
    train_limit: int | None = Field(
        default=None, ge=1, description="Train on a random part of this size."
    )
    group_by_length: bool = Field(
        default=True,
        description="Texts of like length share a batch, in random order: less padding.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop when the validation loss has not fallen in so many looks at it, and "
        "keep the best; off by default.",
    )
    eval_every: int | Literal["epoch"] | None = Field(
        default=None,
        description="Steps between two looks at the validation loss, or epoch; with patience "
        "each epoch by default, otherwise never.",
    )
    save_every: int | None = Field(
        default=None,
        ge=1,
        description="Steps between two saved states, from which an interrupted run goes on; ten "
        "minutes by default.",
    )
    report_to: tuple[str, ...] = Field(
        default=(), description="Trackers that transformers knows: trackio, tensorboard, ..."
    )
    lora: LoraSettings = Field(default=LoraSettings(), description="Used by method: lora.")
    ia3: Ia3Settings = Field(default=Ia3Settings(), description="Used by method: ia3.")
    optimizer: OptimizerSettings | None = Field(
        default=None, description="AdamW with its usual settings by default."
    )
    schedule: ScheduleSettings | None = Field(default=None, description="Linear by default.")
    clipping: ClippingSettings | None = Field(
        default=None, description="By a norm of 1 where this is left out."
    )
    dropout: DropoutSettings | None = Field(
        default=None, description="What the model's configuration says by default."
    )
    stochastic_depth: StochasticDepthSettings | None = Field(
        default=None, description="Layers that examples skip; none by default."
    )
    hyperspherical_energy: HypersphericalSettings | None = Field(
        default=None,
        description="A penalty on neurons that point the same way, for method: full; off by "
        "default.",
    )
    fisher_trace: FisherTraceSettings | None = Field(
        default=None, description="Measured by layer as training goes on; off by default."
    )
    deficit: DeficitSettings | None = Field(
        default=None, description="Of the training data, for some epochs; none by default."
    )
    reference: ReferenceSettings = Field(
        default=ReferenceSettings(), description="Used by model: reference:NAME."
    )
    initialisation: InitialisationSettings | None = Field(
        default=None, description="Of a reference model; transformers' own by default."
    )

    @field_validator("eval_every")
    @classmethod
    def _positive(cls, given: int | str | None) -> int | str | None:
        if isinstance(given, int) and given < 1:
            raise ValueError("Input should be greater than or equal to 1, or 'epoch'")
        return given

    @field_validator("preset")
    @classmethod
    def _known(cls, given: str | None) -> str | None:
        if given is not None and given not in PRESETS:
            raise ValueError(f"no such preset. {nearest(given, PRESETS)}")
        return given

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        for name in ("lora", "ia3"):
            if self.method != name and name in self.model_fields_set:
                raise ValueError(
                    f"{name} is set, but method is {self.method}; write method: {name}, "
                    "or leave it out"
                )
        if self.method != "full" and self.hyperspherical_energy is not None:
            raise ValueError(
                f"hyperspherical_energy goes with method: full, not {self.method}: it spreads the "
                "model's own neurons"
            )
        if self.model_fields_set.issuperset(_LENGTHS):
            raise ValueError("epochs and max_steps are both set; leave one out")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"gradient_accumulation {self.gradient_accumulation} does not divide batch_size "
                f"{self.batch_size}"
            )
        if self.preset is not None and self.method not in PRESETS[self.preset].methods:
            used = " or ".join(PRESETS[self.preset].methods)
            raise ValueError(
                f"preset {self.preset} has no settings for method {self.method}; write {used}"
            )
        return self

    @model_validator(mode="after")
    def _science_fits(self) -> Self:
        reference.check(self.model, self.reference)
        if reference.architecture_of(self.model) is None:
            if self.initialisation is not None:
                raise ValueError("initialisation is for model: reference:NAME; others have weights")
        elif self.method != "full":
            raise ValueError(
                f"a reference model starts at random: method {self.method} does not go"
            )
        if self.schedule is not None and self.schedule.name == "noam":
            given = _OF_NOAM & self.model_fields_set
            if given:
                raise ValueError(
                    f"noam decides {' and '.join(sorted(given))} by its width and warmup_steps"
                )
        if self.schedule is not None and self.schedule.name == "triangular" and self.warmup:
            raise ValueError("triangular rises by itself: leave warmup out")
        return self

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, its default filled in."""
        return self.learning_rate or _LEARNING_RATES[self.method]

    @property
    def eval_rhythm(self) -> int | Literal["epoch"] | None:
        """Steps between two looks at the validation loss, or epoch; None for never."""
        return self.eval_every or ("epoch" if self.patience is not None else None)

    def settled(self) -> TuneRecipe:
        """The recipe with its preset's settings where it has none of its own.

        Raises:
            UsageError: they do not go together.
        """
        if self.preset is None:
            return self
        preset = PRESETS[self.preset]
        own = self.model_dump(exclude_unset=True)
        given = {**preset.settings, **preset.methods[self.method]}
        replaced = {"gradient_accumulation"} if "batch_size" in own else set()
        if own.keys() & set(_LENGTHS):
            replaced |= set(_LENGTHS)
        if self.schedule is not None and self.schedule.name == "noam":
            replaced |= _OF_NOAM
        given = {key: value for key, value in given.items() if key not in replaced}
        nested = {
            key: {**value, **own[key]}
            for key, value in given.items()
            if isinstance(value, dict) and isinstance(own.get(key), dict)
        }
        return parse_recipe({**given, **own, **nested})


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
    """A local path counts from the recipe's folder; hub ids and names of ours stay."""
    if ref.startswith((BUILT_IN, reference.PREFIX)):
        return ref
    return recipes.resolve(folder, ref)
