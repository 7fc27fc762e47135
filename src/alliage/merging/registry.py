"""What a merge method is, and the registry of them.

A method is one pure function on plain tensors with a decorator that says what it needs:

    @method("average", unit="block", space="weight", paper="arXiv:2203.05482")
    def average(
        weights: Tensor, *, weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0
    ) -> Tensor: ...

The decorator returns the function unchanged. The parameters' kinds, defaults and ranges are read
from its signature, their meaning from its docstring: they are declared once.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    runtime_checkable,
)

from alliage.errors import Problem, UsageError, nearest
from alliage.merging.plug_ins import PlugIn, load_plug_ins
from alliage.merging.signature import Parameter, PerModelNumber, declared

if TYPE_CHECKING:  # torch takes a second to load, and merges by compiled kernels do without it
    from torch import Tensor

    from alliage.checkpoints.statistics import StatisticsKind

Unit = Literal["block", "tensor", "factors"]
Space = Literal["weight", "delta"]
Scope = Literal["model", "module", "tensor"]
Function = TypeVar("Function", bound=Callable[..., Any])
ResultRank = Callable[..., tuple[int, bool]]
Seconds = Callable[..., float]

SMALLEST_BLOCK = 2**12  # elements; every block begins at a multiple of it


class PerBlock(list[Any]):
    """An argument with a value for each block of its group, in their order."""


class FirstPass(Protocol):
    """A streaming reduction that runs before a block method, once for each group of tensors.

    Made with (number of models, elements of the group, **what it reads). The engine asks for the
    `result`: keyword arguments for the method, or None where all blocks must be seen, once more;
    then it shows them (`update`, from any thread, with the block's place in the group).

    Attributes:
        reads: the method's parameters that it depends on; it is made with these alone.
    """

    reads: ClassVar[tuple[str, ...]]

    def __init__(self, models: int, numel: int, **parameters: Any) -> None: ...
    @staticmethod
    def scope(**parameters: Any) -> Scope: ...  # noqa: D102  what makes a group
    @staticmethod
    def least_passes(**parameters: Any) -> int: ...  # noqa: D102  over all blocks, at the least
    @staticmethod
    def memory(models: int, sampled: int) -> int: ...  # noqa: D102  bytes, at the most
    def update(  # noqa: D102  `uniform` for methods that are random
        self, tensors: Tensor, place: int, uniform: Tensor | None = None
    ) -> None: ...
    def result(self) -> Mapping[str, Any] | None: ...  # noqa: D102


_OF_FIRST_PASSES = ("reads", "scope", "least_passes", "memory", "update", "result")


@runtime_checkable
class Sampling(FirstPass, Protocol):
    """A first pass that is shown some slices before it is asked for anything."""

    def sample(self, tensors: Tensor) -> None: ...  # noqa: D102


class Guess(Protocol):
    """A global quantity that few elements need: guessed first, counted while merging.

    `look` sees each block with the method's arguments: what it adds to the count, and whether its
    result depends on the guess. If in the end `settle(total count)` differs from `guessed`, only
    such blocks are merged again.
    """

    guessed: Mapping[str, Any]

    def look(self, tensors: Tensor, **arguments: Any) -> tuple[int, bool]: ...  # noqa: D102
    def settle(self, count: int) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Masks:
    """How each model is rebuilt from the merged one: base + sᵢ·Mᵢ∘(merged − base).

    Attributes:
        select: Mᵢ, bool [n, ...], of the task vectors [n, ...], what they were merged into [...],
            and the method's arguments; elementwise.
        rescale: whether sᵢ = Σ|τᵢ| / Σ|Mᵢ∘(merged − base)| over the whole model; 1 where not.
    """

    select: Callable[..., Tensor]
    rescale: bool


@dataclass(frozen=True, slots=True)
class Method:
    """A registered merge method.

    Attributes:
        name: as users write it.
        function: the definition, callable on plain tensors.
        unit: "block": elementwise over aligned flat blocks, tensors [n, elements];
            "tensor": on one whole parameter of every model at a time, [n, *shape];
            "factors": on LoRA factors of one module, never their product.
        space: "delta": gets tuned − base; "weight": gets the weights themselves.
        paper: where it comes from.
        departures: where and why it differs from the paper; empty where it does not.
        first_pass: a reduction over whole tensors or models that it needs first.
        guess: a global quantity that it guesses and settles while merging.
        oriented: of unit "tensor": whether rows must be a layer's outputs: linear layers' weights
            come as [n, d_out, d_in] then, also where the architecture stores [d_in, d_out].
        random: whether it takes `uniform`, numbers in [0, 1) of the shape of its tensors, which
            the engine draws by (seed, tensor, model): blocks and threads do not change them.
        models: how many models it merges; None: any number.
        identical: whether it promises that copies of one model give that model, by its defaults.
        homogeneous: whether models that are scaled together give the result scaled.
        work: how much decompositions and float64 arithmetic take beside the models' and the
            result's tensors, in float32 tensors of one model.
        seconds: of unit "tensor", for decompositions: (number of models, a matrix's rows, columns,
            **parameters) -> about how long one takes on one core; None: as elementwise arithmetic.
        masks: how each model is rebuilt from what the method merges; None: it is not.
        rank: of unit "factors": (the adapters' ranks, 0 where one does not adapt the module, d_out,
            d_in, **parameters) -> the result's rank at the most, and whether it is certain before
            values are read; None: factors are merged entry by entry, and their ranks must be one.
        statistics: of the models on data, which it needs beside the weights. The function takes
            "fisher" as `fisher`, of the shape of its tensors; the others as `grams`
            [n, d_in, d_in], or None for what is no linear layer; the weights of one that is come
            as if `oriented`.
        parameters: name -> declaration.
        summary: the docstring's first line.
    """

    name: str
    function: Callable[..., Any]
    unit: Unit
    space: Space
    paper: str
    departures: str
    first_pass: type[FirstPass] | None
    guess: Guess | None
    oriented: bool
    random: bool
    models: int | None
    identical: bool
    homogeneous: bool
    work: int
    seconds: Seconds | None
    masks: Masks | None
    rank: ResultRank | None
    statistics: StatisticsKind | None
    parameters: Mapping[str, Parameter]
    summary: str

    @property
    def takes_signs(self) -> bool:
        """Whether given signs can replace those that it elects: it takes them as `signs`."""
        return "signs" in inspect.signature(self.function).parameters

    def readings(self, **arguments: Any) -> int:
        """How often every model is read, at the least, to merge with these arguments."""
        first = self.first_pass.least_passes(**arguments) if self.first_pass is not None else 0
        return 1 + first + (self.masks is not None)


_REGISTRY: dict[str, Method] = {}


def method(
    name: str,
    *,
    unit: Unit,
    space: Space,
    paper: str,
    departures: str = "",
    first_pass: type[FirstPass] | None = None,
    guess: Guess | None = None,
    oriented: bool = False,
    random: bool = False,
    models: int | None = None,
    identical: bool = False,
    homogeneous: bool = True,
    work: int = 0,
    seconds: Seconds | None = None,
    masks: Masks | None = None,
    rank: ResultRank | None = None,
    statistics: StatisticsKind | None = None,
) -> Callable[[Function], Function]:
    """Register a merge method; the function itself stays as it is.

    Raises:
        ValueError: the name is taken by another function, there is no such unit or space, the first
            pass lacks something or reads what is no parameter, or a parameter is of a kind that
            cannot be declared.
    """
    for what, value, kind in (("unit", unit, Unit), ("space", space, Space)):
        if value not in get_args(kind):
            expected = f"must be one of {', '.join(get_args(kind))}, got {value!r}"
            raise ValueError(f"{what} of the merge method {name!r} {expected}.")
    absent = [each for each in _OF_FIRST_PASSES if not hasattr(first_pass, each)]
    if first_pass is not None and absent:
        what = f"{first_pass.__name__}, the first pass of the merge method {name!r},"
        raise ValueError(f"{what} lacks {', '.join(absent)}: see FirstPass in {__name__}.")

    def register(function: Function) -> Function:
        known = _REGISTRY.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise ValueError(f"{name!r} is already the merge method {known.function.__module__}")
        parameters = declared(
            function,
            tensors=2 if unit == "factors" else 1,
            passes=first_pass is not None or guess is not None,
        )
        for read in first_pass.reads if first_pass is not None else ():
            if read not in parameters:
                what = f"the first pass of the merge method {name!r} reads {read!r},"
                raise ValueError(f"{what} which is none of its parameters.")
        _REGISTRY[name] = Method(
            name=name,
            function=function,
            unit=unit,
            space=space,
            paper=paper,
            departures=departures,
            first_pass=first_pass,
            guess=guess,
            oriented=oriented,
            random=random,
            models=models,
            identical=identical,
            homogeneous=homogeneous,
            work=work,
            seconds=seconds,
            masks=masks,
            rank=rank,
            statistics=statistics,
            parameters=parameters,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
        )
        return function

    return register


def list_methods() -> list[str]:
    """The names of all methods, plug-ins included, in alphabetical order."""
    return sorted(_loaded())


def get_method(name: str) -> Callable[..., Any]:
    """A method's function.

    Raises:
        UsageError: no method of that name; with the nearest names.
    """
    return describe(name).function


def describe(name: str) -> Method:
    """A method's registration.

    Raises:
        UsageError: no method of that name; with the nearest names.
    """
    methods = _loaded()
    if name not in methods:
        what, fix = f"there is no merge method {name!r}.", nearest(name, methods)
        for plug_in in plug_ins():
            if plug_in.problem and plug_in.is_named(name):
                what = f"{name!r} would come with {plug_in}, which is left out: {plug_in.problem}"
                fix = f"Mend {plug_in.package}, or remove it."
        raise UsageError(Problem("method", what, fix))
    return methods[name]


def per_model(values: PerModelNumber, like: Tensor) -> Tensor:
    """One value for each model, [n, 1, ...], to multiply with `like` [n, ...]."""
    import torch

    column = torch.as_tensor(values, dtype=like.dtype, device=like.device).expand(len(like))
    return column.reshape(-1, *(1,) * (like.ndim - 1))


def one_each(values: PerModelNumber, models: int) -> Tensor:
    """One value for each model, float64 [n]."""
    import torch

    return torch.as_tensor(values, dtype=torch.float64).expand(models)


def weighted_sum(tensors: Tensor, weight: PerModelNumber) -> Tensor:
    """Σ wᵢtᵢ over [n, ...], in the order of the models.

    Products and sums are rounded one by one, so that an element's value does not depend on where in
    a block it stands.
    """
    weights = per_model(weight, tensors)
    total = tensors[0] * weights[0]
    for tensor, factor in zip(tensors[1:], weights[1:], strict=True):
        total += tensor * factor
    return total


def partial_sums(values: Tensor) -> list[float]:
    """Sums of a block's elements, some at a time, in float64.

    Added up by `math.fsum` over all blocks they give the same total wherever blocks end.
    """
    import torch

    return [float(some.sum()) for some in torch.split(values.double(), SMALLEST_BLOCK)]


def plug_ins() -> tuple[PlugIn, ...]:
    """What other packages bring, and what they cannot."""
    return _load_all()


def plug_in_of(name: str) -> PlugIn | None:
    """What brought a method; nothing for built-in ones and those that a program registers."""
    return next((each for each in plug_ins() if name in each.methods and not each.problem), None)


@cache
def _load_all() -> tuple[PlugIn, ...]:
    """Import every built-in method and every plug-in, once."""
    from alliage.merging import methods

    for module in pkgutil.iter_modules(methods.__path__):
        importlib.import_module(f"{methods.__name__}.{module.name}")
    return load_plug_ins(_REGISTRY)


def _loaded() -> Mapping[str, Method]:
    _load_all()
    return _REGISTRY
