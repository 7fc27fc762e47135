"""Collecting what one model's data say of its weights, into a file."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.statistics import MEAN, written
from alliage.data import Task
from alliage.data.task import GENERATIVE
from alliage.errors import Problem, UsageError, nearest
from alliage.statistics.fisher import fisher_diagonal
from alliage.statistics.inputs import packed, run, watched
from alliage.statistics.names import in_file
from alliage.statistics.preparing import (
    EXAMPLES,
    OnEvent,
    Progress,
    StatisticsRecord,
    of_layers,
    place_for,
    prepare,
    sizes,
    transposed,
    write_tensor,
)

_LABELS = ("expected", "sampled")
DEFAULT_MEMORY = 2**30  # for the Grams of one pass
_MOST_CLASSES = 1000  # each is a backward pass


def collect_fisher(
    model: str | Path | Checkpoint,
    task: str | Path | Task,
    out: str | Path,
    *,
    split: str = "train",
    examples: int | None = EXAMPLES,
    labels: str | None = None,
    seed: int = 0,
    head: str | None = None,
    device: str = "cpu",
    on_event: OnEvent | None = None,
) -> StatisticsRecord:
    """Write the diagonal Fisher information of a model's weights, for `fisher` merges.

    F = mean over examples x of E (∂ log p(y|x))², y from the model: what the data's own labels are
    does not matter. What one example is: see `alliage.statistics.gradients.squared_terms`.

    Args:
        model: whatever `alliage.evaluation.evaluate` takes. An adapter is merged into its base
            first; the weights are named as the base's.
        task: of any kind; a language model's answers are the texts' tokens.
        out: the new .safetensors file.
        split: train, validation or test.
        examples: of a random part of it, the same each time; None takes all.
        labels: "expected": the exact expectation, one backward pass for each class; "sampled": one
            for all, with labels drawn from the model. By default expected, but sampled where an
            example has many decisions, as tagged sentences and texts of language models have.
        seed: of the drawn labels.
        head: of a merged model, the parent whose head to use.
        device: "cpu" or "cuda".
        on_event: called with (stage, done, total).

    Raises:
        UsageError: no such model, task or split; an `out` that exists; too many classes.
        Misfit: the model's labels are not the task's.
        AlliageError: damaged files, or gradients that are NaN.
    """
    started, place = time.perf_counter(), place_for(out)
    with open_checkpoint(model) as checkpoint:
        ready = prepare(
            checkpoint, task, split=split, examples=examples, head=head, device=device
        )  # fmt: skip
        writes = ready.task.kind in GENERATIVE
        many = writes or ready.task.kind == "token-classification"
        how = labels or ("sampled" if many else "expected")
        if how not in _LABELS:
            raise UsageError(Problem("--labels", f"no labels {how!r}.", nearest(how, _LABELS)))
        if how == "expected" and (writes or len(ready.task.labels) > _MOST_CLASSES):
            what = "each token of the vocabulary is a class" if writes else "there are so many"
            what += ": exact expectations would take a backward pass for each."
            raise UsageError(Problem("--labels expected", what, "Use --labels sampled."))
        progress = Progress(
            on_event, f"gradients of {ready.classifier.name}", len(ready.examples)
        )  # fmt: skip
        found = fisher_diagonal(
            ready.model,
            ready.batches(1),
            torch.Generator().manual_seed(seed),
            expected=how == "expected",
            shift=ready.shift,
            on_example=lambda: progress(1),
        )
        tensors = in_file(ready.model, ready.body, found)
        origin = ready.origin("fisher", labels=how, seed=seed if how == "sampled" else 0)
        with written(place, {name: t.shape for name, t in tensors.items()}, origin) as writer:
            for name, tensor in tensors.items():
                write_tensor(writer, name, tensor)
        return ready.record(place, origin, len(tensors), 1, started)


def collect_regmean(
    model: str | Path | Checkpoint,
    task: str | Path | Task,
    out: str | Path,
    *,
    split: str = "train",
    examples: int | None = EXAMPLES,
    head: str | None = None,
    batch_size: int = 32,
    memory: int = DEFAULT_MEMORY,
    device: str = "cpu",
    on_event: OnEvent | None = None,
) -> StatisticsRecord:
    """Write E xxᵀ and E x over the inputs x of every linear layer, for `regmean` merges.

    Args:
        model: as for `collect_fisher`.
        task: of any kind.
        out: the new .safetensors file: d_in² float32 numbers for each layer.
        split: train, validation or test.
        examples: as for `collect_fisher`.
        head: of a merged model, the parent whose head to use.
        batch_size: examples in one pass, of one length each: nothing is padded.
        memory: bytes of float64 sums that are kept at once, d_in² for each layer; where they are
            too few for all layers, the data are passed over more than once.
        device: "cpu" or "cuda".
        on_event: called with (stage, done, total).

    Raises:
        UsageError: as for `collect_fisher`.
        Misfit: the model's labels are not the task's.
        AlliageError: damaged files, or a model without linear layers.
    """
    started, place = time.perf_counter(), place_for(out)
    with open_checkpoint(model) as checkpoint:
        ready = prepare(
            checkpoint, task, split=split, examples=examples, head=head, device=device
        )  # fmt: skip
        layers, homes = of_layers(ready)
        origin = ready.origin("regmean", transposed=transposed(layers, homes))
        shapes: dict[str, tuple[int, ...]] = {}
        for name, size in sizes(layers, homes).items():
            shapes |= {name: (size, size), name + MEAN: (size,)}
        groups = packed(layers, memory)
        with written(place, shapes, origin) as writer:
            for number, group in enumerate(groups, start=1):
                stage = f"inputs of {ready.classifier.name}"
                stage += f", pass {number} of {len(groups)}" if len(groups) > 1 else ""
                progress = Progress(on_event, stage, len(ready.examples))
                with watched({name: layers[name] for name in group}) as found:
                    run(ready.model, ready.batches(batch_size), progress)
                for name, layer in homes.items():
                    if layer in found:
                        write_tensor(writer, name, found[layer].mean_gram())
                        write_tensor(writer, name + MEAN, found[layer].mean())
        return ready.record(place, origin, len(homes), len(groups), started)
