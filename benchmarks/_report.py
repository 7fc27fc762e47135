"""Where benchmarks write: benchmarks/out/<name>.json, and a Markdown table on the terminal."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def report(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows as JSON and print them as a table."""
    OUT.mkdir(exist_ok=True)
    content = {"benchmark": name, "title": title, "machine": machine(), "rows": list(rows)}
    (OUT / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    columns = list(rows[0])
    print(f"\n### {title}\n\n`python -m benchmarks {name}`\n")
    print("| " + " | ".join(columns) + " |")
    print("| " + " | ".join("---" for _ in columns) + " |")
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
