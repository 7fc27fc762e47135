"""Where benchmarks write: benchmarks/out/<name>.json, and their section of RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"
RESULTS = Path(__file__).parent / "RESULTS.md"
_LOAD_AT_START = os.getloadavg()[0]  # above 0: the machine is shared
_PREAMBLE = """\
# Results

Each section is written by its benchmark, which `python -m benchmarks NAME` runs again.
"""


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "load_at_start": round(_LOAD_AT_START, 1),
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    note: str = "",
    details: Mapping[str, Any] | None = None,
    command: str = "",
) -> None:
    """Write the rows as JSON, renew the benchmark's section of RESULTS.md, and print it.

    Args:
        name: of the section and the JSON file.
        title: of the section.
        rows: of the table, all with the same columns.
        note: what a reader of the table has to know.
        details: what the JSON holds beside the rows.
        command: what follows `python -m benchmarks`; the name by default.
    """
    OUT.mkdir(exist_ok=True)
    content = {"benchmark": name, "title": title, "machine": machine(), "rows": list(rows)}
    content |= details or {}
    (OUT / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    section = _section(command or name, title, rows, note)
    text = RESULTS.read_text() if RESULTS.exists() else _PREAMBLE
    RESULTS.write_text(replace_section(text, name, section))
    print(f"\n{section}")


def replace_section(text: str, name: str, section: str) -> str:
    """The text with what stands between the benchmark's markers replaced, or added at the end."""
    marked = f"<!-- {name} -->\n{section}<!-- /{name} -->\n"
    pattern = rf"<!-- {re.escape(name)} -->\n.*?<!-- /{re.escape(name)} -->\n"
    new, found = re.subn(pattern, lambda _: marked, text, flags=re.DOTALL)
    return new if found else f"{text.rstrip()}\n\n{marked}"


def _processor() -> str:
    """The processor's model, which the platform module does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _section(command: str, title: str, rows: Sequence[Mapping[str, Any]], note: str) -> str:
    columns = list(rows[0])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row[column]) for column in columns) for row in rows]
    table = "".join(f"| {line} |\n" for line in lines)
    on = machine()
    where = (
        f"{on['cores']} cores ({on['processor']}, {on['memory']}, "
        f"load {on['load_at_start']} before the start), "
        f"{on['system']}, Python {on['python']}."
    )
    parts = [f"## {title}\n", f"`python -m benchmarks {command}` on {where}\n"]
    return "\n".join([*parts, *([f"{note}\n"] if note else []), table])
