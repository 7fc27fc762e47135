"""Signs estimated from a few labelled examples of every task (arXiv:2306.01708, appendix B.1).

One body is trained on some examples of each task, with each model's own head, and
sgn(θ_trained − θ_base) is what `ties` takes in place of its election.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.signs import INPUTS
from alliage.data import Task
from alliage.errors import Problem, UsageError
from alliage.evaluation.scoring import Settings as Asking
from alliage.merging.engine.heads import folder_name
from alliage.merging.planning.plan import MergedTensor, Plan
from alliage.merging.planning.planner import plan
from alliage.merging.recipe.files import parse_recipe
from alliage.merging.signs import SignsRecord, inputs_of, place_for, write_signs
from alliage.search.ada_merging import KINDS, answers, batches_of
from alliage.search.candidates import Candidates
from alliage.search.questions import questions_of

OnEvent = Callable[[str, int, int], None]
Start = Literal["mean", "base"]

EXAMPLES = 32  # as the paper takes


@dataclass(frozen=True, slots=True)
class Settings:
    """How the body is trained, by Adam with one batch of every task in a step.

    Attributes:
        start: "mean" of the models, or "base" (from scratch).
        steps: of the optimiser.
        learning_rate: of the optimiser.
        batch_size: examples of each task in a step.
        seed: of the batches.
    """

    start: Start = "mean"
    steps: int = 100
    learning_rate: float = 1e-4
    batch_size: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Estimated:
    """What was estimated.

    Attributes:
        signs: the file.
        losses: the mean over the tasks' batches, at each step, before it.
        examples: of each task.
    """

    signs: SignsRecord
    losses: tuple[float, ...]
    examples: tuple[int, ...]


def few_shot_signs(
    models: Sequence[str],
    tasks: Sequence[Task],
    out: str | Path,
    settings: Settings,
    *,
    base: str | None = None,
    split: str = "train",
    examples: int = EXAMPLES,
    device: str = "cpu",
    on_event: OnEvent | None = None,
) -> Estimated:
    """Train one body for all tasks on a few examples of each; save the signs of what it learned.

    The body alone is trained. Heads stay as the models have them, and the mean of the models' is
    the one of all where models and base decide the same; its sign is saved for a merged head, and
    the models' mean sign for buffers, which no gradient reaches (running means of batch
    normalisation).

    Args:
        models: references, with a head each.
        tasks: of each model, in the same order; of classification.
        out: the new file, NAME.safetensors.
        settings: how to train.
        base: what they were tuned from; an adapter may name it itself.
        split: of the examples.
        examples: of each task, a random part of the split, the same each time.
        device: "cpu" or "cuda".
        on_event: called with (stage, done, total).

    Raises:
        UsageError: `out` exists, no base is known, not one task for each model, or tasks of other
            kinds; all of them.
        Unlabelled: a split has no labels.
        AlliageError: the models do not fit together, or training ended in NaN or infinity.
    """
    started, place = time.perf_counter(), place_for(out)
    _check(models, tasks)
    share = 1 / len(models) if settings.start == "mean" else 0.0
    content = {"method": "task_arithmetic", "base": base, "models": list(models)}
    recipe = parse_recipe(content | {"parameters": {"scale": share}})
    made = plan(recipe)
    made.raise_problems()
    heads = {
        task.name: folder_name(vector.name)
        for task, vector in zip(tasks, made.vectors, strict=True)
        if vector.name in made.left_apart
    }
    questions = questions_of(tasks, split=split, limit=examples, heads=heads)
    place.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as home,
        Candidates(recipe, questions, Path(home), settings=Asking(device=device)) as candidates,
    ):
        deltas, losses = _train(made, candidates, settings, on_event)
    assert made.base is not None
    data = [{"task": q.task.name, "split": q.split, "examples": q.digest()} for q in questions]
    metadata = {
        "alliage.signs": f"{len(models)} models on {examples} examples",
        INPUTS: inputs_of(made.base, made.vectors),
        "alliage.training": json.dumps({"settings": asdict(settings), "data": data}),
    }
    record = write_signs(
        place,
        {tensor.name: tensor.spec.shape for tensor in made.merged},
        lambda name, start, stop: deltas[name][start:stop],
        metadata,
        "the trained body",
        started,
        on_event,
    )
    return Estimated(record, losses, tuple(len(question.examples) for question in questions))


def _check(models: Sequence[str], tasks: Sequence[Task]) -> None:
    problems = [
        Problem(task.name, f"is a {task.kind} task: signs are estimated by {', '.join(KINDS)}.")
        for task in tasks
        if task.kind not in KINDS
    ]
    if len(models) != len(tasks):
        what = f"{len(models)} model{'s' * (len(models) > 1)}, but {len(tasks)} tasks."
        fix = "Name one for each model, in the same order."
        problems.append(Problem("--task", what, fix))
    if problems:
        raise UsageError(problems)


def _train(
    made: Plan, candidates: Candidates, settings: Settings, on_event: OnEvent | None
) -> tuple[dict[str, Tensor], tuple[float, ...]]:
    """What the trained body has over the base, flat, of each tensor; and the losses."""
    device, trainable = candidates.settings.device, candidates.trainable
    bases, leaves, means = {}, {}, {}
    body: dict[str, Tensor] = {}
    for tensor, base, mean in _means(made):
        head = is_task_head(tensor.name)
        start = (base + mean if settings.start == "mean" or head else base.clone()).to(device)
        if tensor.name in trainable and not head:
            bases[tensor.name] = base
            leaves[tensor.name] = start.requires_grad_()
        else:
            means[tensor.name] = mean.flatten()
        body |= dict.fromkeys((tensor.name, *tensor.copies), start)
    optimiser = torch.optim.Adam(leaves.values(), lr=settings.learning_rate)
    streams = [
        batches_of(question.examples, settings.batch_size, settings.seed)
        for question in candidates.questions
    ]
    losses = []
    for step in range(settings.steps):
        optimiser.zero_grad()
        total = 0.0
        for candidate, stream in zip(candidates.models, streams, strict=True):
            logits, labels = answers(candidate, body, next(stream))
            loss = cross_entropy(logits, labels) / len(streams)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        losses.append(total)
        optimiser.step()
        if on_event is not None:
            on_event("training", step + 1, settings.steps)
    learned = {n: (leaf.detach().cpu() - bases[n]).flatten() for n, leaf in leaves.items()}
    return learned | means, tuple(losses)


def _means(made: Plan) -> Iterator[tuple[MergedTensor, Tensor, Tensor]]:
    """Each tensor that is merged, the base's elements, and the models' mean delta from them."""
    assert made.base is not None
    for tensor in made.merged:
        base = made.base.read(tensor.name).float()
        mean = torch.zeros_like(base)
        for number, parameter in tensor.sources:
            vector = made.vectors[number]
            if parameter in vector.shapes:
                mean += vector.delta(parameter) / len(made.vectors)
        yield tensor, base, mean
