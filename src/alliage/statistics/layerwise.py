"""The inputs that layers have behind merged ones (RegMean++, arXiv:2508.03121).

RegMean takes a layer's inputs from each model by itself. In the merged model the layer gets other
ones: those that come out of the merged layers below. So merging and running go in turn, one block
of layers after the other:

    for each block, in the order in which data pass them
        for each model: run its own data through the merged blocks below and its own block,
            and collect the inputs of the block's linear layers
        merge the block by them, and put it in the place of every model's own

That runs models, which a merge does not. Here it is done once and leaves the inputs in files; the
merge then reads them as any other statistics, and comes to the same weights.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.statistics import describe_model, weight_digests, written
from alliage.checkpoints.writer import OutputFolder
from alliage.data import Task
from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.methods.regmean_plus_plus import regmean_plus_plus
from alliage.statistics.inputs import is_transposed, run, watched
from alliage.statistics.preparing import (
    EXAMPLES,
    OnEvent,
    Prepared,
    Progress,
    StatisticsRecord,
    of_layers,
    prepare,
    sizes,
    transposed,
    write_tensor,
)

_BLOCK = re.compile(r"^(?:.*?\.)?(?:layers?|h|blocks?|transformer_blocks)\.\d+(?=\.|$)")


def collect_regmean_plus_plus(
    models: Sequence[str | Path],
    tasks: Sequence[str | Path | Task],
    out: str | Path,
    *,
    split: str = "train",
    examples: int | None = EXAMPLES,
    alpha: float = 0.9,
    batch_size: int = 32,
    device: str = "cpu",
    on_event: OnEvent | None = None,
) -> list[StatisticsRecord]:
    """Write E xxᵀ over the inputs that layers have behind merged ones, for regmean_plus_plus.

    All models are held in memory at once, in float32. Each block takes a pass over the data of
    every model, as far as that block.

    Args:
        models: all that are to be merged, in that order.
        tasks: one for each of them.
        out: a new folder, which gets a file for each model, named after it.
        split: train, validation or test.
        examples: of each task, as for `collect_fisher`.
        alpha: of the merge.
        batch_size: as for `collect_regmean`.
        device: "cpu" or "cuda".
        on_event: called with (stage, done, total).

    Raises:
        UsageError: another number of tasks than models; else as for `collect_fisher`.
        Misfit: a model's labels are not its task's.
        AlliageError: models of different architectures, or damaged files.
    """
    started, place = time.perf_counter(), Path(out)
    if len(tasks) != len(models):
        what = f"{len(models)} models, but {len(tasks)} tasks."
        raise UsageError(Problem("--task", what, "Name one for each model, in the same order."))
    if not 0 <= alpha <= 1:
        raise UsageError(Problem("alpha", f"must be in [0, 1], got {alpha:g}."))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(OutputFolder(place))
        opened = [stack.enter_context(open_checkpoint(model)) for model in models]
        ready = [
            prepare(each, task, split=split, examples=examples, head=None, device=device)
            for each, task in zip(opened, tasks, strict=True)
        ]
        _check_alike(ready)
        digests = [_digests(each) for each in ready]
        parts, records = [], []
        for each, name in zip(ready, _names(opened), strict=True):
            layers, homes = of_layers(each)
            homes = {name: layer for name, layer in homes.items() if not _is_apart(layer)}
            origin = each.origin(
                "regmean_plus_plus",
                merged_with=digests,
                parameters={"alpha": alpha},
                transposed=transposed(layers, homes),
            )
            shapes = {name: (size, size) for name, size in sizes(layers, homes).items()}
            file = f"{name}.safetensors"
            writer = stack.enter_context(written(folder.staging / file, shapes, origin))
            names = {layer: [n for n, of in homes.items() if of == layer] for layer in layers}

            def store(
                layer: str, gram: torch.Tensor, names: Any = names, writer: Any = writer
            ) -> None:
                for name in names[layer]:
                    write_tensor(writer, name, gram)

            watched_layers = {layer: layers[layer] for layer in homes.values()}
            parts.append(Part(each, watched_layers, store))
            records.append((file, origin, len(homes)))
        passes = merge_in_turn(parts, alpha=alpha, batch_size=batch_size, on_event=on_event)
        return [
            each.record(place / file, origin, count, passes, started)
            for each, (file, origin, count) in zip(ready, records, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Part:
    """One model of the merge.

    Attributes:
        ready: the model and its data; its weights become the merged ones.
        layers: the linear layers whose inputs are collected.
        store: takes each layer's Gram.
    """

    ready: Prepared
    layers: Mapping[str, torch.nn.Module]
    store: Callable[[str, torch.Tensor], None]


def merge_in_turn(
    parts: Sequence[Part], *, alpha: float, batch_size: int, on_event: OnEvent | None = None
) -> int:
    """Merge all models into each other, block after block, and store the inputs on the way.

    Returns:
        how many blocks there were: passes over the data.
    """
    first = parts[0]
    blocks = _in_order(first, batch_size)
    inside = {name for block in blocks for name in _parameters(first.ready.model, block)}
    everything = [n for n, _ in first.ready.model.named_parameters() if not is_task_head(n)]
    _merge(parts, [name for name in everything if name not in inside], {}, alpha)
    total = sum(len(part.ready.examples) for part in parts)
    for number, (block, layers) in enumerate(blocks.items()):
        following = list(blocks.values())[number + 1 : number + 2]
        progress = Progress(on_event, f"inputs of block {number + 1} of {len(blocks)}", total)
        grams: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
        for part in parts:
            with watched({layer: part.layers[layer] for layer in layers}) as found:
                _run_until(part, following[0][0] if following else None, batch_size, progress)
            for layer, inputs in found.items():
                gram = inputs.mean_gram()
                part.store(layer, gram)
                grams[layer].append(gram)
        _merge(parts, _parameters(first.ready.model, block), grams, alpha)
    return len(blocks)


class _Reached(Exception):
    """What comes next in the model is not needed."""


def _run_until(
    part: Part, layer: str | None, batch_size: int, progress: Callable[[int], None]
) -> None:
    """Run a model's data as far as the first call of a layer, or to the end."""

    def stop(*_: Any) -> None:
        raise _Reached

    handle = part.layers[layer].register_forward_pre_hook(stop) if layer is not None else None
    try:
        for batch in part.ready.batches(batch_size):
            with contextlib.suppress(_Reached):
                run(part.ready.model, [batch])
            progress(len(next(iter(batch.values()))))
    finally:
        if handle is not None:
            handle.remove()


def _in_order(part: Part, batch_size: int) -> dict[str, list[str]]:
    """Blocks of layers in the order in which data pass them, each with its linear layers in theirs.

    A linear layer outside the stack is a block of its own.
    """
    called: dict[str, None] = {}
    handles = [
        layer.register_forward_pre_hook(lambda *_, name=name: called.setdefault(name))
        for name, layer in part.layers.items()
    ]
    try:
        run(part.ready.model, [next(part.ready.batches(batch_size))])
    finally:
        for handle in handles:
            handle.remove()
    blocks: dict[str, list[str]] = {}
    for name in [*called, *(name for name in part.layers if name not in called)]:
        match = _BLOCK.match(name)
        blocks.setdefault(match.group(0) if match else name, []).append(name)
    return blocks


def _parameters(model: Any, block: str) -> list[str]:
    return [name for name, _ in model.named_parameters() if name.startswith(block + ".")]


def _merge(
    parts: Sequence[Part],
    parameters: Sequence[str],
    grams: Mapping[str, Sequence[torch.Tensor]],
    alpha: float,
) -> None:
    """Put merged weights in the place of every model's own."""
    models = [dict(part.ready.model.named_parameters()) for part in parts]
    for name in parameters:
        own = torch.stack([model[name].detach().cpu() for model in models])
        layer = name.removesuffix(".weight")
        known = grams.get(layer) if name.endswith(".weight") else None
        turned = known is not None and is_transposed(parts[0].layers[layer])
        merged = regmean_plus_plus(
            own.mT if turned else own,
            grams=None if known is None else torch.stack(list(known)),
            alpha=alpha,
        )
        for model in models:
            with torch.no_grad():
                model[name].copy_(merged.mT if turned else merged)


def _is_apart(layer: str) -> bool:
    """Whether a layer is a task's head, which is not merged."""
    return is_task_head(f"{layer}.weight")


def _check_alike(ready: Sequence[Prepared]) -> None:
    """Refuse models that are not of one form.

    Raises:
        AlliageError: with the first weight that differs, of each model.
    """
    first, *others = [
        {n: p.shape for n, p in each.model.named_parameters() if not is_task_head(n)}
        for each in ready
    ]
    problems = []
    for each, shapes in zip(ready[1:], others, strict=True):
        wrong = next((n for n in {**first, **shapes} if first.get(n) != shapes.get(n)), None)
        if wrong is not None:
            what = f"has another {wrong} than {ready[0].checkpoint.ref}: they cannot be merged."
            problems.append(Problem(each.checkpoint.ref, what))
    if problems:
        raise AlliageError(problems)


def _digests(ready: Prepared) -> list[str]:
    base = None if ready.body is ready.checkpoint else ready.body
    return weight_digests(describe_model(ready.checkpoint, base))


def _names(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """A file's name for each model; models of one name are numbered."""
    names: list[str] = []
    for checkpoint in checkpoints:
        name, number = checkpoint.name.replace("/", "-"), 1
        while name in names:
            number += 1
            name = f"{checkpoint.name.replace('/', '-')}-{number}"
        names.append(name)
    return names
