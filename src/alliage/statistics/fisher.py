"""The diagonal of the Fisher information of a model's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from alliage.errors import AlliageError, Problem
from alliage.statistics.gradients import squared_terms


def fisher_diagonal(
    model: Any,
    examples: Iterable[Mapping[str, torch.Tensor]],
    generator: torch.Generator,
    *,
    expected: bool,
    shift: bool = False,
    on_example: Callable[[], None] = lambda: None,
) -> dict[str, torch.Tensor]:
    """Mean over examples of E (∂ log p(y|x))², with y from the model itself.

    Summed up in float64, beside the model and the gradients of one example; of embeddings, only
    for the tokens that the example has.

    Args:
        model: of transformers, in evaluation mode; its embeddings have sparse gradients afterwards.
        examples: batches of one.
        generator: draws labels, where not all are `expected`.
        expected: see `squared_terms`.
        shift: see `squared_terms`.
        on_example: called after each.

    Returns:
        by the names of the model's parameters, each of its shape, float32; zeros where the answers
        do not depend on one.

    Raises:
        AlliageError: a gradient is NaN or infinite.
    """
    named = dict(model.named_parameters())
    for parameter in named.values():
        parameter.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.sparse = True
    sums = {
        name: torch.zeros(parameter.shape, dtype=torch.float64, device=parameter.device)
        for name, parameter in named.items()
    }
    count = 0
    for example in examples:
        for weight, gradients in squared_terms(
            model, list(named.values()), example, generator, expected=expected, shift=shift
        ):
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    _add_square(total, gradient, weight)
        count += 1
        on_example()
    flawed = [name for name, total in sums.items() if not total.isfinite().all()]
    if flawed:
        what = "its gradient is NaN or infinite."
        raise AlliageError(Problem(flawed[0], what, "Inspect the model's weights."))
    return {name: (total / count).float().cpu() for name, total in sums.items()}


def _add_square(total: torch.Tensor, gradient: torch.Tensor, weight: float) -> None:
    """Add weight · gradient² to a sum."""
    if gradient.is_sparse:
        rows = gradient.coalesce()
        squares = rows.values().double().square_()
        total.index_add_(0, rows.indices()[0], squares, alpha=weight)
    else:
        total.add_(gradient.double().square_(), alpha=weight)
