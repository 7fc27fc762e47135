"""Gradients of one example's log-likelihood, with labels from the model itself.

Their squares are the diagonal of the Fisher information E ∂log p(y|x) ∂log p(y|x)ᵀ, with y drawn
from p(·|x). It is a mean over examples of squares: the square of a batch's mean gradient is another
thing, smaller by about the size of the batch. So each example has a pass of its own;
torch.func.vmap, which would make one of many, does not get through the masks of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from alliage.data.encoding import IGNORED


def squared_terms(
    model: Any,
    parameters: Sequence[torch.nn.Parameter],
    example: Mapping[str, torch.Tensor],
    generator: torch.Generator,
    *,
    expected: bool,
    shift: bool = False,
) -> Iterator[tuple[float, tuple[torch.Tensor | None, ...]]]:
    """Gradients whose squares, weighted, add up to one example's Fisher information.

    One example is what is drawn at once: a text, an image, a sentence with all its tokens. Given
    the text its tokens' labels are independent, and each score has mean zero, so the expectation of
    the squared sum is the sum over tokens of the expected squares. Of a language model, the labels
    are the next tokens, each given the true ones before it. A regression predicts a normal with
    variance 1.

    Args:
        model: of transformers, in evaluation mode.
        parameters: to differentiate by.
        example: a batch of one, with "labels". Where those are -100, nothing is predicted; else
            they only count.
        generator: draws the labels, on the CPU.
        expected: take each label by its probability, one gradient for each; else draw one for all.
        shift: a position predicts the token after it, as in causal language models.

    Yields:
        how much the squares count, and the gradients; None for what the answer does not depend on.
    """
    on_device = {key: value.to(model.device) for key, value in example.items()}
    with torch.enable_grad():
        logits = model(**on_device).logits
        terms = _terms(logits, on_device["labels"], generator, expected, shift)
    for weight, log_probability in terms:
        yield (
            weight,
            torch.autograd.grad(
                log_probability, list(parameters), retain_graph=True, allow_unused=True
            ),
        )


def _terms(
    logits: torch.Tensor,
    labels: torch.Tensor,
    generator: torch.Generator,
    expected: bool,
    shift: bool,
) -> list[tuple[float, torch.Tensor]]:
    """The log-probabilities to differentiate, and what each square counts."""
    if labels.is_floating_point():
        # log p = −(y − f)²/2, and E (y − f)² = 1: the square of ∇f is exact.
        return [(1.0, logits.sum())]
    if logits.dim() == 3:
        if shift:
            logits, labels = logits[:, :-1], labels[:, 1:]
        logits = logits[labels != IGNORED]
    log_probabilities = logits.log_softmax(-1)
    shares = log_probabilities.detach().exp()
    if expected:
        return [
            (share.item(), value)
            for row, row_shares in zip(log_probabilities, shares, strict=True)
            for value, share in zip(row, row_shares, strict=True)
        ]
    if not len(shares):
        return []
    drawn = torch.multinomial(shares.cpu(), 1, generator=generator).to(logits.device)
    return [(1.0, log_probabilities.gather(-1, drawn).sum())]
