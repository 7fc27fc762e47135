"""What signals become on their way through a network, and numbers through one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch


class Signal(NamedTuple):
    """How strong signals are behind one module.

    Attributes:
        module: its name.
        forward: mean square of its outputs.
        backward: mean square of the gradient that reaches them.
    """

    module: str
    forward: float
    backward: float


def signal_by_depth(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    modules: Mapping[str, torch.nn.Module],
    generator: torch.Generator,
) -> list[Signal]:
    """How strong signals and gradients are, module by module.

    An initialisation keeps both constant by depth, or lets them vanish or explode (002, 1.1.2).
    The gradient starts at the last module, as normal noise of variance 1.

    Args:
        model: called with the inputs.
        inputs: by the names of its arguments.
        modules: name -> module, in the order in which signals pass.
        generator: of the noise.

    Returns:
        one for each module.
    """
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        with torch.enable_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    last = outputs[list(modules)[-1]]
    noise = torch.randn(last.shape, generator=generator, dtype=last.dtype)
    gradients = torch.autograd.grad(last, [outputs[name] for name in modules], noise)
    return [
        Signal(name, outputs[name].square().mean().item(), gradient.square().mean().item())
        for name, gradient in zip(modules, gradients, strict=True)
    ]


def compositions(
    function: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor, times: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A function applied to its own results, f⁽ⁿ⁾(x), and its slope there (002, exercise 4.2).

    ReLU stays as it is; softplus becomes ln(eˣ + n).

    Args:
        function: elementwise.
        points: x, [k].
        times: the largest n.

    Returns:
        values and slopes, [times + 1, k]; the first rows are x and 1.
    """
    values = [points]
    slopes = [torch.ones_like(points)]
    for _ in range(times):
        before = values[-1].detach().requires_grad_()
        after = function(before)
        (slope,) = torch.autograd.grad(after.sum(), before)
        values.append(after.detach())
        slopes.append(slopes[-1] * slope)
    return torch.stack(values), torch.stack(slopes)
