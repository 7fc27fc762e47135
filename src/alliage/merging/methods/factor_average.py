"""LoRA factors merged apart: averages (Zhang et al. 2023; Fosse 2024), and what PEFT does so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from alliage.merging.registry import method
from alliage.merging.rules import Apply, by_rule
from alliage.merging.signature import Rule

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "factor_average",
    unit="factors",
    space="delta",
    paper="arXiv:2306.14870",
    departures="The paper has equal weights and averages; rule and root are PEFT's.",
)
def factor_average(
    B: Sequence[Tensor],
    A: Sequence[Tensor],
    *,
    rule: Annotated[str, Rule()] = "average",
    root: bool = False,
    apply: Apply = by_rule,
    **parameters: Any,
) -> tuple[Tensor, Tensor]:
    """Merge the factors apart: B = Σ wᵢBᵢ / Σ wᵢ and A = Σ wᵢAᵢ / Σ wᵢ, or by another rule.

    This is not the average of the updates BᵢAᵢ: it has cross terms BᵢAⱼ, and it changes when one
    adapter is written with other factors (BR, R⁻¹A) of the same product. PEFT's combination types
    linear, ties, dare_linear, dare_ties and magnitude_prune are this, in the dialect "peft", with
    the rules task_arithmetic (its default there), ties, dare_linear, dare_ties, magnitude_prune.

    Args:
        B: n tensors [d_out, r], the adapters' B.
        A: n tensors [r, d_in], the adapters' A.
        rule: the method that merges the Bᵢ, and the Aᵢ, with its own parameters beside it.
        root: a weight wᵢ of the rule is √|wᵢ| for Bᵢ and sgn(wᵢ)√|wᵢ| for Aᵢ, as in PEFT: wᵢ in
            their product.
        apply: how the rule is applied; as it stands, each factor is one vector to it.
        parameters: of the rule.

    Returns:
        B [d_out, r] and A [r, d_in].
    """
    import torch

    of_B, of_A = dict(parameters), dict(parameters)
    if root and "weight" in parameters:
        weights = torch.as_tensor(parameters["weight"], dtype=torch.float64)
        of_B["weight"] = weights.abs().sqrt()
        of_A["weight"] = weights.sign() * of_B["weight"]
    return (
        apply(rule, torch.stack(list(B)), of_B),
        apply(rule, torch.stack(list(A)), of_A),
    )
