"""An adapter applied to its base, or a task rebuilt from its masks: one full checkpoint each.

Both are streamed like any merge.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from os import cpu_count
from pathlib import Path
from shutil import rmtree

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.card import model_card
from alliage.checkpoints.masks import MaskFile, holds_masks
from alliage.checkpoints.reference import CONFIG, HEADS, read_json
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import OutputFolder
from alliage.errors import Problem, UsageError
from alliage.merging.engine.heads import head_settings
from alliage.merging.engine.run import RunRecord, run
from alliage.merging.masks import base_of, task_file
from alliage.merging.planning.plan import DEFAULT_MEMORY
from alliage.merging.planning.planner import plan
from alliage.merging.recipe.files import parse_recipe

OnEvent = Callable[[str, int, int], None]


def apply(
    adapter: str | Path,
    *,
    out: str | Path,
    base: str | Path | None = None,
    task: str | None = None,
    scale: float = 1.0,
    dtype: str | None = None,
    memory: int = DEFAULT_MEMORY,
    threads: int | None = None,
    resume: bool = False,
    on_event: OnEvent | None = None,
) -> RunRecord:
    """Write θ_base + s·ΔW of a LoRA or (IA)3 adapter as a full checkpoint, in constant memory.

    Of a model that was merged by a method that keeps masks (emr, tall_masks), it writes
    θ_base + s·λM∘(θ_merged − θ_base) instead: the model of one task, as near as the masks bring it.

    It is the merge of one model by task arithmetic (arXiv:2212.04089) with weight 1. A task head
    that the adapter saved whole becomes the model's own, whatever the scale, so the result predicts
    as the adapted model does.

    Args:
        adapter: a PEFT adapter, as `alliage.open` takes it; a merged model, with `task`.
        out: the new folder; it may be on a URL where the adapter has no task head.
        base: the model it adapts; by default the one that its settings name. Of a merged model the
            one that it counts from, by default where its alliage.json says.
        task: the name of the merged model's task.
        scale: s, any finite number; −1 takes away what was learned.
        dtype: of the output; the base's own by default.
        memory: bytes of anonymous memory that it may take.
        threads: workers; all cores by default.
        resume: go on where an interrupted run to `out` ended.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: no adapter, no base known or another one than the merge's, an unknown task, or
            `out` exists.
        AlliageError: the adapter does not fit the base, or the masks are not of the merged model;
            every misfit.
    """
    ref = adapter if task is None else task_file(adapter, task)
    with open_checkpoint(ref, base=base) as opened:
        given = opened.base
        masks = MaskFile(opened) if holds_masks(opened) else None
        if masks is not None:
            origin = base_of(masks, given)
        elif opened.adapter is None:
            fix = "A sum of full models: `alliage arithmetic`; a task of a merged model: --task."
            raise UsageError(Problem(opened.ref, "is a full model; expected an adapter.", fix))
        elif given is None:
            what = "is an adapter that names no base."
            raise UsageError(Problem(opened.ref, what, "Give the base (--base)."))
        else:
            origin = given.ref
        content = {
            "method": "task_arithmetic",
            "base": origin,
            "models": [str(ref)],
            "parameters": {"scale": scale},
            "dtype": dtype,
        }
        made = plan(
            parse_recipe(content),
            out=out,
            memory=memory,
            threads=threads or cpu_count() or 1,
            resume=resume,
        )
        made.raise_problems()
        if not made.left_apart:
            return run(made, out, resume=resume, on_event=on_event)
        place = local_destination(out)
        seated = OutputFolder(place)
        body = place.parent / f".{place.name}.body"  # beside it, so that a run can go on with it
        record = run(made, body, resume=resume, on_event=on_event)
        try:
            with seated as folder:
                written = _seat_head(folder, body, opened, masks)
        finally:
            rmtree(body, ignore_errors=True)
        return replace(record, out=place, bytes_written=written)


def _seat_head(
    folder: OutputFolder, body: Path, adapter: Checkpoint, masks: MaskFile | None
) -> int:
    """Move a body and the head left apart from it to `folder`, as one model; bytes of weights."""
    (source,) = (body / HEADS).glob("*/head.safetensors")
    decided = read_json(source.with_name("head.json"))
    record = provenance.read(body)
    assert record is not None
    with open_checkpoint(body) as merged, open_checkpoint(source) as head:
        files = [*merged.weight_files, source]
        names = {
            file: f"model-{number:05d}-of-{len(files):05d}.safetensors"
            for number, file in enumerate(files, start=1)
        }
        specs = {**merged.specs(), **head.specs()}
        config = merged.config
    for file in files:
        Path(str(file)).rename(folder.staging / names[file])
    places = {name: names[spec.file] for name, spec in sorted(specs.items())}
    total = sum(spec.nbytes for spec in specs.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    folder.add_json("model.safetensors.index.json", index)
    rmtree(body / HEADS)
    for name in (f"{files[0].name}.index.json", CONFIG, provenance.FILE, "README.md"):
        (body / name).unlink(missing_ok=True)
    for item in body.iterdir():
        item.rename(folder.staging / item.name)
    # A tokenizer of the adapter's own, or of the merged model's, goes before the base's.
    donor = nullcontext(adapter) if masks is None else open_checkpoint(str(masks.folder))
    with donor as opened:
        folder.add_companions(opened)
    if config is not None:
        folder.add_json(CONFIG, config | head_settings(adapter, config, decided))
    facts = {key: decided[key] for key in ("task", "kind", "labels")}
    described = provenance.describe(
        "apply", record["recipe"], record["inputs"], folder.staging, **facts
    )
    folder.add_json(provenance.FILE, described)
    summary = (
        f"The adapter `{adapter.name}` applied to its base, with its task head."
        if masks is None
        else f"The task `{adapter.name}` of a merged model, rebuilt by its masks, with its head."
    )
    folder.add_text("README.md", model_card(folder.out.name, summary, described))
    return sum((folder.staging / name).stat().st_size for name in names.values())
