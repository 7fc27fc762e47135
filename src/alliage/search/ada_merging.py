"""AdaMerging (Yang et al. 2024, arXiv:2310.02575): coefficients learned without labels.

θ = θ₀ + Σ λₖₗ Φ(τₖ)ₗ, where the λ minimise the entropy of the predictions on unlabelled examples.
What is learned becomes a recipe, so that the merge itself runs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alliage.data import Example
from alliage.data.encoding import IGNORED
from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.planning.plan import MergedTensor
from alliage.merging.recipe.schema import MergeRecipe
from alliage.search.candidates import Candidate, Candidates

By = Literal["task", "layer"]
OnEvent = Callable[[str, int, int], None]

KINDS = ("sequence-classification", "token-classification", "image-classification")
# Methods whose result is Σ λₖ Φ(τₖ), with these parameters: AdaMerging, and AdaMerging++.
_LINEAR: Mapping[str, Mapping[str, Any]] = {
    "task_arithmetic": {"scale": 1.0},
    "ties": {"scale": 1.0, "vote": "sum", "combine": "sum"},
}
_DIGITS = 6  # of coefficients in the recipe


@dataclass(frozen=True, slots=True)
class Settings:
    """How coefficients are learned; the defaults are the paper's.

    Attributes:
        by: "task": one coefficient for each model; "layer": for each tensor of each model, as the
            authors' code has it.
        steps: of Adam, with one batch of every task.
        learning_rate: of Adam.
        start: what all coefficients start with.
        batch_size: examples of each task in a step.
        seed: of the batches.
    """

    by: By = "layer"
    steps: int = 500
    learning_rate: float = 1e-3
    start: float = 0.3
    batch_size: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned.

    Attributes:
        recipe: with the coefficients, rounded.
        entropies: the mean over the tasks' batches, at each step, before it.
    """

    recipe: MergeRecipe
    entropies: tuple[float, ...]


def linear_recipe(recipe: MergeRecipe) -> MergeRecipe:
    """The recipe whose weights are to be learned, of AdaMerging or, by ties, of AdaMerging++.

    Raises:
        UsageError: another method, slices, or a recipe that sets the weights itself, or what goes
            with them.
    """
    problems = []
    if recipe.method not in _LINEAR:
        what = f"is {recipe.method}: coefficients are learned for {' and '.join(_LINEAR)}."
        problems.append(Problem("method", what))
    if recipe.slices:
        problems.append(Problem("slices", "are not for learned coefficients.", "Give models."))
    own = [f"models[{i}]" for i, each in enumerate(recipe.models) if "weight" in each.parameters]
    own += ["the recipe"] if "weight" in recipe.parameters else []
    fix = "Leave it out."
    problems += [
        Problem("weight", f"is what is learned, but {place} sets it.", fix) for place in own
    ]
    problems += [
        Problem(name, f"is {recipe.parameters[name]}: learned weights go with {value}.", fix)
        for name, value in _LINEAR.get(recipe.method, {}).items()
        if recipe.parameters.get(name, value) != value
    ]
    if problems:
        raise UsageError(problems)
    given = {**recipe.parameters, **_LINEAR[recipe.method]}
    return recipe.model_copy(update={"parameters": given})


def learn(
    recipe: MergeRecipe,
    candidates: Candidates,
    settings: Settings,
    on_event: OnEvent | None = None,
) -> Learned:
    """Learn the coefficients by Adam (β 0.9, 0.999); they stay in [0, 1], as in the authors' code.

    The gradient is exact: ∂H/∂λₖₗ = ⟨∂H/∂θₗ, Φ(τₖ)ₗ⟩, with ∂H/∂θ by torch. Buffers, such as the
    running means of batch normalisation, are merged alike but taken for constants: coefficients
    of their own stay where they start.

    Args:
        recipe: from `linear_recipe`.
        candidates: of its models; their questions' examples are the data, their labels are not
            looked at.
        settings: how.
        on_event: called with ("learning", step, steps).

    Raises:
        UsageError: a task without labels to be uncertain between.
        AlliageError: all coefficients came to 0.
    """
    problems = [
        Problem(each.task.name, f"is a {each.task.kind} task: its entropy is not learned from.")
        for each in candidates.questions
        if each.task.kind not in KINDS
    ]
    if problems:
        raise UsageError(problems)
    merge = _Merge(recipe, candidates)
    rows = len(merge.tensors) if settings.by == "layer" else 1
    weights = torch.full((rows, len(recipe.models)), settings.start, requires_grad=True)
    optimiser = torch.optim.Adam([weights], lr=settings.learning_rate)
    streams = [
        batches_of(question.examples, settings.batch_size, settings.seed)
        for question in candidates.questions
    ]
    entropies = []
    for step in range(settings.steps):
        batches = [next(stream) for stream in streams]
        value, gradient = merge.entropy(weights.detach(), batches)
        entropies.append(value / len(batches))
        weights.grad = gradient
        optimiser.step()
        with torch.no_grad():
            weights.clamp_(0, 1)
        if on_event is not None:
            on_event("learning", step + 1, settings.steps)
    if not weights.any():
        what = "all learned weights came to 0: the merge would be the base."
        raise AlliageError(Problem("weight", what, "Learn in fewer steps, or from more examples."))
    return Learned(merge.recipe_with(weights.detach()), tuple(entropies))


class _Merge:
    """θ₀ + Σ λₖₗ Φ(τₖ)ₗ, and how its entropy changes with λ."""

    def __init__(self, recipe: MergeRecipe, candidates: Candidates) -> None:
        self._recipe, self._candidates = recipe, candidates
        device, held = candidates.settings.device, candidates.held
        self._trainable = candidates.trainable
        count = len(recipe.models)
        alone = [
            candidates.plan(_weighted(recipe, [float(k == model) for k in range(count)]))
            for model in range(count)
        ]
        self.tensors: list[MergedTensor] = alone[0].merged
        inputs = held.inputs(alone[0])
        if recipe.method == "task_arithmetic":  # Φ(τ) is τ
            parts = inputs
        else:
            parts = {name: torch.empty_like(tensor) for name, tensor in inputs.items()}
            for model, made in enumerate(alone):
                for name, values in held.made(made).items():
                    parts[name][model] = values
                held.forget_made()
        self._base = [held.base(each.name).to(device) for each in self.tensors]
        self._parts = [parts[each.name].to(device) for each in self.tensors]  # [n, elements]
        held.clear()

    def entropy(self, weights: Tensor, batches: list[list[Example]]) -> tuple[float, Tensor]:
        """The sum over the tasks of the mean entropy of a batch, and its gradient.

        Args:
            weights: [tensors, n], or [1, n] for all tensors alike.
            batches: of each question.
        """
        rows = weights.to(self._base[0].device).expand(len(self.tensors), -1)
        body: dict[str, Tensor] = {}
        for tensor, base, parts, row in zip(
            self.tensors, self._base, self._parts, rows, strict=True
        ):
            merged = (base + row @ parts).reshape(tensor.spec.shape)
            merged.requires_grad_(tensor.name in self._trainable)
            body |= dict.fromkeys((tensor.name, *tensor.copies), merged)
        total = 0.0
        for candidate, batch in zip(self._candidates.models, batches, strict=True):
            loss = batch_entropy(candidate, body, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        slopes = [
            parts @ grad.flatten() if (grad := body[tensor.name].grad) is not None else 0 * row
            for tensor, parts, row in zip(self.tensors, self._parts, rows, strict=True)
        ]
        gradient = torch.stack(slopes).cpu()
        return total, gradient if len(weights) > 1 else gradient.sum(dim=0, keepdim=True)

    def recipe_with(self, weights: Tensor) -> MergeRecipe:
        """The recipe with the coefficients as weights, by the tensors' names where they differ."""
        columns = [[round(float(each), _DIGITS) for each in column] for column in weights.T]
        if len(weights) == 1:
            return _weighted(self._recipe, [column[0] for column in columns])
        # A rule applies where its filter is anywhere in the name: longer names come first.
        names = sorted(enumerate(self.tensors), key=lambda each: -len(each[1].name))
        rules = [
            [{"filter": tensor.name, "value": column[place]} for place, tensor in names]
            for column in columns
        ]
        return _weighted(self._recipe, rules)


def answers(
    candidate: Candidate, body: Mapping[str, Tensor], examples: list[Example]
) -> tuple[Tensor, Tensor]:
    """What a model with another body says of some examples.

    Args:
        candidate: the model, of a task with labels.
        body: name in the merged checkpoint -> weights.
        examples: one batch.

    Returns:
        logits [decisions, labels of the task], float32, and the right labels [decisions].
    """
    classifier = candidate.classifier
    batch = classifier.encoder.collate(classifier.encoder.encode(examples))
    given = batch.pop("labels")
    weights = {own: body[name] for name, own in candidate.parameters.items() if name in body}
    device = next(iter(body.values())).device
    inputs = {name: tensor.to(device) for name, tensor in batch.items()}
    logits = torch.func.functional_call(classifier.model, weights, kwargs=inputs).logits.float()
    logits, given = logits[..., torch.tensor(classifier.columns, device=device)], given.to(device)
    if classifier.kind == "token-classification":
        decided = given != IGNORED
        logits, given = logits[decided], given[decided]
    return logits, given


def batch_entropy(
    candidate: Candidate, body: Mapping[str, Tensor], examples: list[Example]
) -> Tensor:
    """The mean entropy of what a model with another body says of some examples.

    Args:
        candidate: the model.
        body: name in the merged checkpoint -> weights.
        examples: with labels that nobody looks at: they tell which tokens are decided.
    """
    logits, _ = answers(candidate, body, examples)
    log_p = logits.log_softmax(dim=-1)
    entropy: Tensor = -(log_p.exp() * log_p).sum(dim=-1).mean()
    return entropy


def _weighted(recipe: MergeRecipe, weights: list[Any]) -> MergeRecipe:
    models = tuple(
        entry.model_copy(update={"parameters": {**entry.parameters, "weight": weight}})
        for entry, weight in zip(recipe.models, weights, strict=True)
    )
    return recipe.model_copy(update={"models": models})


def batches_of(examples: tuple[Example, ...], size: int, seed: int) -> Iterator[list[Example]]:
    """Batches without end, every example once before any comes again."""
    draw = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, len(examples)):
            waiting += torch.randperm(len(examples), generator=draw).tolist()
        chosen, waiting = waiting[:size], waiting[size:]
        yield [examples[place] for place in chosen]
