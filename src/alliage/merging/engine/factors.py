"""Merging LoRA adapters by their factors, module by module."""

from __future__ import annotations

from collections.abc import Callable

from alliage.checkpoints import dtypes
from alliage.checkpoints.writer import TensorWriter
from alliage.errors import AlliageError, Problem
from alliage.merging.planning.plan import Plan
from alliage.vectors import LowRankVector


def merge_factors(
    plan: Plan, writer: TensorWriter, notify: Callable[[str, int, int], None]
) -> None:
    """Write the merged adapter's factors.

    Raises:
        AlliageError: NaN or infinity in a factor; all of them.
    """
    import torch

    adapters = [vector for vector in plan.vectors if isinstance(vector, LowRankVector)]
    arguments = {
        name: torch.tensor(value) if plan.method.parameters[name].per_model else value
        for name, value in plan.arguments.items()
    }
    problems: list[Problem] = []
    for done, module in enumerate(adapters[0].modules, start=1):
        factors = [vector.factors(module) for vector in adapters]
        for vector, found in zip(adapters, factors, strict=True):
            problems += [
                Problem(f"{spec.file}: {spec.name}", "holds NaN or infinity.")
                for spec, tensor in zip(vector.stored(module), found[:2], strict=True)
                if not tensor.isfinite().all()
            ]
        merged = plan.method.function(
            torch.stack([f.B for f in factors]), torch.stack([f.A for f in factors]), **arguments
        )
        for spec, tensor in zip(adapters[0].stored(module), merged, strict=True):
            code = dtypes.code_of(plan.recipe.dtype) if plan.recipe.dtype else spec.dtype
            stored = tensor.to(dtypes.torch_dtype(code or spec.dtype)).contiguous()
            writer.write(spec.name, 0, stored.view(torch.uint8).numpy().data.cast("B"))
        notify("merging", done, len(adapters[0].modules))
    if problems:
        raise AlliageError(problems)
