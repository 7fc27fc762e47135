"""What a rule inside a factor method needs of all modules: its first pass, guesses, draws."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from alliage.merging.engine.passes import one_more
from alliage.merging.engine.returned import merged_tensor
from alliage.merging.engine.values import draws
from alliage.merging.planning.merged import MergedModule
from alliage.merging.planning.plan import Plan
from alliage.merging.registry import FirstPass, Method, PerBlock, Scope
from alliage.merging.rules import Apply, rule_of

if TYPE_CHECKING:
    from torch import Tensor

Place = tuple[int, int]  # module, call of the rule in it
Walk = Callable[[Callable[[MergedModule], Apply]], None]


@dataclass(slots=True)
class _Group:
    """The calls that the rule sees as one vector.

    Attributes:
        sizes: elements of each.
        order: where each stands among them.
        shared: what the first pass found; empty where there was none.
        counted: of a guess, what each call adds to its count.
        doubtful: whether some call depends on the guess.
    """

    arguments: Mapping[str, Any]
    sizes: dict[Place, int] = field(default_factory=dict)
    order: dict[Place, int] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    counted: dict[Place, int] = field(default_factory=dict)
    doubtful: bool = False


class RulePasses:
    """Applies the plan's rule, call by call, as if each group of calls were one tensor."""

    def __init__(self, plan: Plan, rule: Method) -> None:
        self._rule = rule
        self._models = len(plan.vectors)
        self._modules = plan.factors
        self._numbers = {module.name: number for number, module in enumerate(plan.factors)}
        self._groups: dict[str, _Group] = {}
        self._lock = threading.Lock()

    def measure(self, walk: Walk) -> None:
        """Walk over all modules as often as the rule's first pass needs."""
        first_pass = self._rule.first_pass
        if first_pass is None or {self._scope(each) for each in self._modules} == {"tensor"}:
            return
        walk(self._counting)
        found: dict[str, FirstPass] = {}
        for key, group in list(self._groups.items()):
            if len(group.sizes) < 2:  # whole by itself
                del self._groups[key]
                continue
            group.order = {place: number for number, place in enumerate(sorted(group.sizes))}
            reads = {name: group.arguments[name] for name in first_pass.reads}
            found[key] = first_pass(self._models, sum(group.sizes.values()), **reads)
        passes = 0
        while found:
            for key, reduction in list(found.items()):
                result = reduction.result()
                if result is not None:
                    self._groups[key].shared = dict(result)
                    del found[key]
            if found:
                passes = one_more(passes, self._rule)
                walk(partial(self._updating, reductions=dict(found)))

    def merging(self, module: MergedModule) -> Apply:
        """For one walk over the modules, or for another one after `settle`."""
        places = self._places(module)

        def apply(_: str, tensors: Tensor, parameters: Mapping[str, Any]) -> Tensor:
            place = next(places)
            given = {**parameters, **self._draws(module, place, tensors)}
            group = self._groups.get(self._key(module, place))
            if group is not None:
                given |= {
                    key: value[group.order[place]] if isinstance(value, PerBlock) else value
                    for key, value in group.shared.items()
                }
                self._look(group, place, tensors, given)
            merged = self._rule.function(tensors, **given)
            return merged_tensor(merged, self._rule, module.name, tensors.shape[1:])

        return apply

    def settle(self) -> bool:
        """Whether all guesses held; where not, another walk merges by what was counted."""
        held, guess = True, self._rule.guess
        if guess is None:
            return held
        for group in self._groups.values():
            settled = guess.settle(sum(group.counted.values()))
            held &= not group.doubtful or settled == guess.guessed
            group.shared |= settled
            group.doubtful = False
        return held

    def _look(self, group: _Group, place: Place, tensors: Tensor, given: dict[str, Any]) -> None:
        guess = self._rule.guess
        if guess is None or guess.guessed.keys() <= given.keys():
            return
        given |= guess.guessed
        count, depends = guess.look(tensors, **given)
        with self._lock:
            group.counted[place] = count
            group.doubtful |= depends

    def _counting(self, module: MergedModule) -> Apply:
        places = self._places(module)

        def apply(_: str, tensors: Tensor, parameters: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
            place = next(places)
            with self._lock:
                group = self._groups.setdefault(self._key(module, place), _Group(module.arguments))
                group.sizes[place] = tensors[0].numel()
            return tensors.new_zeros(tensors.shape[1:])

        return apply

    def _updating(self, module: MergedModule, reductions: Mapping[str, FirstPass]) -> Apply:
        places = self._places(module)

        def apply(_: str, tensors: Tensor, parameters: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
            place = next(places)
            key = self._key(module, place)
            if key in reductions:
                drawn = {
                    name: t.flatten(1) for name, t in self._draws(module, place, tensors).items()
                }
                own = self._groups[key].order[place]
                reductions[key].update(tensors.flatten(1).contiguous(), own, **drawn)
            return tensors.new_zeros(tensors.shape[1:])

        return apply

    def _places(self, module: MergedModule) -> Iterator[Place]:
        number, call = self._numbers[module.name], 0
        while True:
            yield number, call
            call += 1

    def _key(self, module: MergedModule, place: Place) -> str:
        own = f"{module.name}/{place[1]}"
        return {"model": "", "module": module.name, "tensor": own}[self._scope(module)]

    def _scope(self, module: MergedModule) -> Scope:
        first_pass = self._rule.first_pass
        return "tensor" if first_pass is None else first_pass.scope(**module.arguments)

    def _draws(self, module: MergedModule, place: Place, tensors: Tensor) -> dict[str, Tensor]:
        """Random numbers for a rule that takes some, by the seed, the module, call and model."""
        if not self._rule.random:
            return {}
        seed, name = module.arguments["seed"], f"{module.name}/{place[1]}"
        drawn = draws(seed, name, len(tensors), 0, tensors[0].numel())
        return {"uniform": drawn.reshape(tensors.shape)}


def rule_passes(plan: Plan) -> RulePasses | None:
    """For a plan of factors whose method has a rule."""
    rule = rule_of(plan.method, plan.factors[0].arguments) if plan.factors else None
    return None if rule is None else RulePasses(plan, rule)
