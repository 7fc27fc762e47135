"""A checkpoint's names in transformers' model of it, which are not always those of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def empty_model(config: Mapping[str, Any]) -> Any:
    """The empty model that a configuration names; no memory is taken for its weights.

    Raises:
        ValueError: transformers has no such model, or not with these settings.
        ImportError: transformers is not installed, or a library that the model needs.
    """
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        own: Any = getattr(transformers, str((config.get("architectures") or [None])[0]), None)
        known = isinstance(own, type) and issubclass(own, transformers.PreTrainedModel)
        settings = transformers.AutoConfig.for_model(**config)
        with torch.device("meta"):
            return own(settings) if known else transformers.AutoModel.from_config(settings)
    except (
        ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
        StrictDataclassError,
    ) as error:  # fmt: skip
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said) from None


def names_in_memory(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """Names in files -> names in a transformers model, by its own rules of renaming.

    What the model does not have keeps some name that is none of its own.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    rules = [r for r in get_model_conversion_mapping(model) if isinstance(r, WeightRenaming)]
    prefix, state = model.base_model_prefix, model.state_dict()
    return {name: rename_source_key(name, rules, [], prefix, state)[0] for name in stored}
