"""Merges of pairs and small sets of tuned models, and what parents and merges answer.

One file for each merge, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._merge_families import Family

UNLABELLED = 64  # examples of each task that a forecast with data may see
SETS = {3: 4, 4: 3}  # size -> how many sets, drawn by the seed
_ALL_METHODS = 0  # the seed that all methods are measured on
_SCALES = (0.0, 0.25, 0.333, 0.4, 0.5)  # of single task vectors
_BATCH = 32
SCALED = "scaled_"


class Merge(NamedTuple):
    """One merge.

    Attributes:
        method: its name; "parent" for a model as it is, "scaled_S" for base + S·τ.
        models: names of the tasks whose models are merged.
    """

    method: str
    models: tuple[str, ...]

    @property
    def file(self) -> str:
        """Where its answers are kept."""
        return f"{self.method}-{'+'.join(self.models)}.npz"


def methods(name: str, *, first: bool) -> tuple[str, ...]:
    """What merges a family's pairs: for all seeds, or for the seed that all methods are tried on.

    Task arithmetic is nearly the average; texts take long.
    """
    if name == "images":
        return ("average", "ties") if first else ("task_arithmetic",)
    if name.endswith("lora"):
        return ("factor_average", "average") if first else ("ties", "task_arithmetic")
    return ("average",) if first else ("ties", "task_arithmetic")


def merges(name: str, tasks: Sequence[str], seed: int, *, first: bool) -> Iterator[Merge]:
    """What is asked of one seed's models: the parents and all pairs first, then what else is."""
    pairs = list(itertools.combinations(tasks, 2))
    if first:
        yield from (Merge("parent", (task,)) for task in tasks)
        yield from (
            Merge(f"{SCALED}{scale:g}", (task,))
            for task, scale in itertools.product(tasks, _SCALES)
        )
        for pair, method in itertools.product(pairs, methods(name, first=True)):
            yield Merge(method, pair)
        return
    random = np.random.default_rng(seed)
    for size, count in SETS.items():
        every = list(itertools.combinations(tasks, size))
        for place in sorted(random.permutation(len(every))[:count]):
            yield Merge(methods(name, first=True)[0], every[place])
    if seed == _ALL_METHODS:
        for method, pair in itertools.product(methods(name, first=False), pairs):
            yield Merge(method, pair)


def measure(
    name: str, family: Family, home: Path, out: Path, seed: int, scored: int, *, first: bool
) -> None:
    """Make and ask what is not yet in `out`.

    Each file holds, for each task of its models, the logits [n, labels] on the examples that are
    scored and on those that count as unlabelled; those of the parents hold the truth, too.

    Args:
        name: of the family.
        family: with its models in `home`.
        home: of the models.
        out: folder of the answers.
        seed: of the models.
        scored: at most so many examples of each task.
        first: whether parents and pairs, or what comes after them.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    out.mkdir(parents=True, exist_ok=True)
    waiting = [
        each
        for each in merges(name, list(family.tasks), seed, first=first)
        if not (out / each.file).exists()
    ]
    if not waiting:
        return
    models = Models(family, home, seed, scored)
    for each in waiting:
        models.become(each)
        answers = {
            f"{task}/{part}": values
            for task in each.models
            for part, values in models.ask(each, task).items()
        }
        partial = out / f".{each.file}.{os.getpid()}"
        with partial.open("wb") as file:
            np.savez(file, **answers)
        partial.rename(out / each.file)


class Models:
    """The models of one seed: one body in memory, that becomes any merge, and a head for each."""

    def __init__(self, family: Family, home: Path, seed: int, scored: int) -> None:
        import torch

        from alliage import vectors
        from alliage.checkpoints import open as open_checkpoint
        from alliage.data import load_task
        from alliage.data.task import select
        from alliage.evaluation.models import load_classifier
        from alliage.statistics.names import sources

        torch.set_num_threads(1)
        base = open_checkpoint(home / family.base)
        self._vectors = {
            task: vectors.open(home / f"{task}-{seed}", base=home / family.base, name=task)
            for task in family.tasks
        }
        shapes = next(iter(self._vectors.values())).shapes
        sizes = {parameter: int(np.prod(shape)) for parameter, shape in shapes.items()}
        stops = itertools.accumulate(sizes.values())
        self._places = {
            parameter: slice(stop - size, stop)
            for (parameter, size), stop in zip(sizes.items(), stops, strict=True)
        }
        self._base = torch.cat([base.read(parameter).float().flatten() for parameter in sizes])
        self._deltas = {
            task: torch.cat([vector.delta(parameter).flatten() for parameter in sizes])
            for task, vector in self._vectors.items()
        }
        self._body = self._base.clone()
        self._classifiers: dict[str, Any] = {}
        self._names: dict[str, Mapping[str, str]] = {}  # of the body's weights in each model
        self._examples: dict[str, dict[str, Any]] = {}
        for name, ref in family.tasks.items():
            task = load_task(home / ref)
            split = "test" if "test" in task.splits else "validation"
            with open_checkpoint(home / f"{name}-{seed}", base=home / family.base) as checkpoint:
                classifier = load_classifier(checkpoint, task)
            model = classifier.model
            if checkpoint.adapter is not None:
                model = model.merge_and_unload()
            classifier = replace(classifier, model=model)
            held = dict(model.named_parameters())
            own = self._names[name] = sources(model, base)
            for parameter, place in self._places.items():
                held[own[parameter]].data = self._body[place].view(shapes[parameter])
            self._classifiers[name] = classifier
            examples = task.examples(split)
            order = np.random.default_rng(0).permutation(len(examples))[: scored + UNLABELLED]
            self._examples[name] = {
                "unlabelled": select(examples, np.sort(order[:UNLABELLED])),
                "scored": select(examples, np.sort(order[UNLABELLED:])),
            }

    def become(self, merge: Merge) -> None:
        """Write a merge over the body."""
        import torch

        from alliage.merging import get_method

        if merge.method == "factor_average":
            delta = torch.cat([self._factor_average(p, merge.models) for p in self._places])
        else:
            deltas = torch.stack([self._deltas[task] for task in merge.models])
            if merge.method == "parent":
                delta = deltas[0]
            elif merge.method.startswith(SCALED):
                delta = deltas[0] * float(merge.method.removeprefix(SCALED))
            else:
                delta = get_method(merge.method)(deltas)
        torch.add(self._base, delta, out=self._body)

    def _factor_average(self, parameter: str, models: Sequence[str]) -> Any:
        from alliage.merging import get_method

        module = parameter.removesuffix(".weight")
        factors = [self._vectors[task].factors(module) for task in models]
        B, A = get_method("factor_average")([f.B for f in factors], [f.A for f in factors])
        return (factors[0].scale * B @ A).flatten()

    def ask(self, merge: Merge, task: str) -> Mapping[str, Any]:
        """What the body answers with a task's head; scaled vectors are predictors, not scored."""
        from alliage.evaluation.answers import predict

        found = {}
        for part, examples in self._examples[task].items():
            if part == "scored" and merge.method.startswith(SCALED):
                continue
            answers = predict(self._classifiers[task], examples, batch_size=_BATCH)
            found[part] = answers.logits.astype(np.float32)
            if merge.method == "parent":
                found[f"{part}_truth"] = answers.truth
        return found

    def features(self, task: str) -> tuple[Any, Any]:
        """Logits, and what the body gives the task's head, [n, d], on the unlabelled examples."""
        from alliage.evaluation.answers import predict

        seen: list[Any] = []
        hook = self._head(task).register_forward_pre_hook(
            lambda _, given: seen.append(given[0].detach().numpy())
        )
        # In one batch, and so in one order.
        found = predict(self._classifiers[task], self._first(task), batch_size=UNLABELLED)
        hook.remove()
        return found.logits, np.concatenate(seen)

    def gradient(self, task: str, answers: Any) -> Any:
        """Of the cross-entropy to some answers, by all weights of the body; flat."""
        import torch

        classifier = self._classifiers[task]
        encoded = classifier.encoder.encode(self._first(task))
        batch = classifier.encoder.collate(encoded)
        batch.pop("labels")
        model = classifier.model.requires_grad_(True)
        logits = model(**batch).logits[:, list(classifier.columns)]
        torch.nn.functional.cross_entropy(logits, torch.as_tensor(answers)).backward()
        own = self._names[task]
        held = dict(model.named_parameters())
        found = np.concatenate([
            held[own[name]].grad.flatten().numpy() for name in self._places
        ])  # fmt: skip
        model.zero_grad(set_to_none=True)
        model.requires_grad_(False)
        return found

    def _first(self, task: str) -> Any:
        return self._examples[task]["unlabelled"]

    def _head(self, task: str) -> Any:
        import torch

        return next(
            module
            for name, module in self._classifiers[task].model.named_modules()
            if name.split(".")[-1] != "dense"
            and "classifier" in name
            and isinstance(module, torch.nn.Linear)
        )
