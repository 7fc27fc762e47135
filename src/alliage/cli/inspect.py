"""alliage inspect: what a checkpoint holds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console
from alliage.errors import AlliageError

if TYPE_CHECKING:
    from alliage.checkpoints import Checkpoint

EXAMPLES = (
    "alliage inspect base sentiment",
    "alliage inspect topics-lora --json",
)


def inspect(
    refs: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help="Folders, weight files, hub ids, adapters, URLs."),
    ],
    json: console.Json = False,
) -> None:
    """Show what checkpoints hold: architecture, layers, types, adapter, tied names, problems."""
    import alliage

    documents, errors = [], []
    for ref in refs:
        try:
            with alliage.open(ref) as checkpoint:
                documents.append(_describe(checkpoint))
        except AlliageError as error:
            errors.append(error)
    if json:
        failed = [str(problem) for error in errors for problem in error.problems]
        console.print_json({"checkpoints": documents, "problems": failed})
    else:
        for document in documents:
            rows = [
                (key, _shown(value))
                for key, value in document.items()
                if value not in (None, {}, [])
            ]
            console.print_table(document["ref"], ("", ""), rows[1:], numbers_from=2)
    if errors:
        worst = max(errors, key=lambda error: error.exit_code)
        raise type(worst)([problem for error in errors for problem in error.problems])


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    from alliage.checkpoints.names import is_head, layer_of

    specs = checkpoint.specs()
    config = checkpoint.config or {}
    layers = {layer_of(name) for name in specs} - {None}
    adapter = checkpoint.adapter
    names = config.get("architectures")
    return {
        "ref": checkpoint.ref,
        "path": str(checkpoint.path),
        "architecture": names[0] if isinstance(names, list) and names else None,
        "model_type": config.get("model_type"),
        "files": [file.name for file in checkpoint.weight_files],
        "tensors": len(specs),
        "parameters": checkpoint.numel,
        "bytes": checkpoint.nbytes,
        "layers": len(layers),
        "dtypes": dict(Counter(spec.dtype for spec in specs.values())),
        "heads": [name for name in specs if is_head(name)] if adapter is None else [],
        "tied": dict(checkpoint.ties),
        "adapter": None
        if adapter is None
        else {
            "kind": adapter.kind,
            "base": adapter.base,
            "rank": adapter.rank or None,
            "alpha": adapter.alpha or None,
            "rank_stabilised": adapter.rank_stabilised,
            "modules": len(checkpoint.adapter_modules),
            "saved_whole": sorted(checkpoint.adapter_saved),
        },
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item not in (None, []))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
