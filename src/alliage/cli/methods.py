"""alliage methods: every merge method and its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from alliage.cli import console

if TYPE_CHECKING:
    from alliage.merging.registry import Method

EXAMPLES = (
    "alliage methods",
    "alliage methods ties",
)


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.")] = None,
    json: console.Json = False,
) -> None:
    """List the merge methods: parameters, ranges, unit of work, paper, departures from it."""
    from alliage.merging import describe, list_methods

    chosen = [describe(each) for each in ([name] if name else list_methods())]
    if json:
        console.print_json({"methods": [_document(method) for method in chosen]})
    elif name:
        _print_one(chosen[0])
    else:
        rows = [(m.name, m.unit, m.space, ", ".join(m.parameters), m.paper) for m in chosen]
        columns = ("method", "unit", "works on", "parameters", "paper")
        console.print_table(f"{len(rows)} merge methods", columns, rows, numbers_from=5)


def _document(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "unit": method.unit,
        "space": method.space,
        "paper": method.paper,
        "departures": method.departures,
        "first_pass": method.first_pass is not None,
        "needs_data": method.statistics is not None,
        "parameters": [
            {
                "name": parameter.name,
                "type": "choice" if parameter.choices else parameter.kind.__name__,
                "default": parameter.default,
                "range": str(parameter.range) if parameter.range else None,
                "choices": list(parameter.choices),
                "per_model": parameter.per_model,
                "meaning": parameter.meaning,
            }
            for parameter in method.parameters.values()
        ],
    }


def _print_one(method: Method) -> None:
    document = _document(method)
    passes = "reads every model twice" if method.first_pass else "reads every model once"
    print(f"{method.name}: {method.summary}\n")
    print(f"paper       {method.paper}")
    data = "no data" if method.statistics is None else "alliage statistics of every model"
    print(f"unit        {method.unit}, {passes}, needs {data}")
    print(f"works on    {'tuned − base' if method.space == 'delta' else 'weights'}")
    if method.departures:
        print(f"departures  {method.departures}")
    rows = [
        (
            parameter["name"] + (" (for each model)" if parameter["per_model"] else ""),
            parameter["type"],
            str(parameter["default"]),
            parameter["range"] or ", ".join(parameter["choices"]),
            parameter["meaning"],
        )
        for parameter in document["parameters"]
    ]
    print()
    columns = ("parameter", "type", "default", "range", "meaning")
    console.print_table("", columns, rows, numbers_from=5)
