"""The model card of an output: a README.md that the hub can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def model_card(title: str, summary: str, record: Mapping[str, Any]) -> str:
    """A card with what was done, the recipe and the inputs, from alliage.json's content.

    Args:
        title: the model's name.
        summary: one paragraph, Markdown.
        record: what `provenance.describe` returned.
    """
    base = [source["ref"] for source in record["inputs"] if source["role"] == "base"]
    front = {
        "library_name": "transformers",
        "tags": ["alliage", record["command"]],
        **({"base_model": base} if base else {}),
    }
    inputs = "\n".join(
        f"| {source['role']} | `{source['ref']}` | `{entry['file']}` | `{entry['sha256']}` |"
        for source in record["inputs"]
        for entry in source["files"]
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {title}\n\n"
        f"{summary}\n\n"
        "## Recipe\n\n```yaml\n"
        f"{yaml.safe_dump(record['recipe'], sort_keys=False, allow_unicode=True)}```\n\n"
        "## Inputs\n\n| role | reference | file | SHA-256 |\n| --- | --- | --- | --- |\n"
        f"{inputs}\n\n"
        f"Made with {versions}. `alliage verify` recomputes every digest.\n"
    )
