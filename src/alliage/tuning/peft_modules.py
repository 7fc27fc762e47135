"""Which modules of transformers' model hold a checkpoint's weights, as PEFT sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from alliage.checkpoints import Checkpoint
from alliage.errors import AlliageError, Problem
from alliage.vectors.in_memory import empty_model, names_in_memory

Kind = Literal["linear", "conv1d", "embedding", "convolution"]

PREFIX = "base_model.model."  # of every name in an adapter's file

_KINDS: dict[str, Kind] = {
    "Linear": "linear",
    "Conv1D": "conv1d",
    "Embedding": "embedding",
    "Conv1d": "convolution",
    "Conv2d": "convolution",
    "Conv3d": "convolution",
}
# Modules of which a model's code takes the bare weight: DeBERTa's relative positions.
_READ_DIRECTLY = ("rel_embeddings",)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight stands in the model in memory.

    Attributes:
        name: of the parameter in memory.
        kind: what LoRA on its module is like; None where PEFT has no exact one.
        obstacle: why there is none.
    """

    name: str
    kind: Kind | None
    obstacle: str = ""

    @property
    def module(self) -> str:
        """The parameter's module."""
        return self.name.rpartition(".")[0]


def locate_weights(checkpoint: Checkpoint) -> tuple[dict[str, Place], dict[str, str]]:
    """Find each tensor of a full model in transformers' model of it; no weight is loaded.

    Files and memory may have other names (ViT), and what LoRA does to a weight depends on its
    module's class: Conv1D and embeddings are stored the other way round than linear layers.

    Returns:
        the place of each tensor that the model has, by its name in the files, and PEFT's
        `auto_mapping`: the model's class and where it is from.

    Raises:
        AlliageError: no config.json, or an architecture that transformers does not have.
    """
    try:
        model = empty_model(checkpoint.config or {})
    except ValueError as error:
        raise AlliageError(
            Problem(
                checkpoint.ref,
                f"transformers has no model for its config.json: {error}",
                "An adapter's form depends on the classes of the modules.",
            )
        ) from None
    state = model.state_dict()
    tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
    places = {
        stored: _place(model, name, name in tied)
        for stored, name in names_in_memory(model, checkpoint.specs()).items()
        if name in state
    }
    origin = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    return places, origin


def _place(model: Any, name: str, tied: bool) -> Place:
    module_name, _, own = name.rpartition(".")
    module = model.get_submodule(module_name)
    form = type(module).__name__
    # Subclasses may do otherwise than PEFT's factors: OPT's positions are shifted by two.
    ours = type(module).__module__.startswith(("torch.nn.modules.", "transformers.pytorch_utils"))
    if own == "bias":
        return Place(name, None, "a bias")
    if module_name.endswith(_READ_DIRECTLY):
        return Place(name, None, "read by the model without its module, where LoRA acts")
    if tied:
        return Place(name, None, "tied to another layer, of which LoRA would change only one")
    if own != "weight" or form not in _KINDS or not ours:
        kind = "a norm" if "norm" in form.lower() else f"a parameter of {form}"
        return Place(name, None, kind)
    if getattr(module, "groups", 1) > 1:
        return Place(name, None, "a convolution in groups")
    return Place(name, _KINDS[form])
