"""alliage methods: every merge method and its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As a page of documentation.")
    ] = False,
    json: console.Json = False,
) -> None:
    """List the merge methods: parameters, ranges, needs, paper, departures from it."""
    from alliage.merging import describe, list_methods
    from alliage.merging.registry import plug_ins

    chosen = [describe(each) for each in ([name] if name else list_methods())]
    if json:
        broken = [{"plug_in": str(each), "problem": each.problem} for each in plug_ins()]
        document = {"methods": [_document(method) for method in chosen]}
        console.print_json(document | {"left_out": [each for each in broken if each["problem"]]})
    elif markdown:
        print(page(chosen))
    elif name:
        _print_one(chosen[0])
    else:
        rows = [
            (m.name, m.unit, m.space, _needs(m) or None, ", ".join(m.parameters), m.paper)
            for m in chosen
        ]
        columns = ("method", "unit", "works on", "needs", "parameters", "paper")
        console.print_table(f"{len(rows)} merge methods", columns, rows, numbers_from=6)
        for each in plug_ins():
            if each.problem:
                print(f"left out: {each}: {each.problem}")
            else:
                print(f"{', '.join(each.methods)}: of {each}")


def page(methods: Sequence[Method]) -> str:
    """A page of documentation in Markdown: a table of all methods, and a section for each."""
    lines = [
        "# Merge methods",
        "",
        "Written by `alliage methods --markdown` from what each method declares.",
        "",
        "**block** methods are streamed, whatever the model's size; **tensor** methods hold one "
        "parameter of every model at a time; **factors** are of LoRA, never multiplied out. "
        "Readings are the fewest: where a sample misleads the search of a threshold, one more "
        "follows.",
        "",
        "| method | unit | needs | what it does |",
        "| --- | --- | --- | --- |",
        *(_row(f"[{m.name}](#{m.name})", m.unit, _needs(m), m.summary) for m in methods),
    ]
    for method in methods:
        lines += ["", *_section(method)]
    return "\n".join(lines)


def _section(method: Method) -> Iterator[str]:
    yield f"## {method.name}"
    yield ""
    yield method.summary
    yield ""
    yield f"- Paper: {_link(method.paper)}"
    works = "tuned − base" if method.space == "delta" else "weights"
    yield f"- Works on {works}, unit {method.unit}; {_passes(method)}."
    if needs := _needs(method):
        yield f"- Needs {needs}."
    if more := _more(method):
        yield f"- {more}"
    yield f"- {_promises(method)}"
    if method.departures:
        yield f"- Departures: {method.departures}"
    if method.parameters:
        yield ""
        yield "| parameter | default | range | meaning |"
        yield "| --- | --- | --- | --- |"
    for parameter in method.parameters.values():
        name = f"`{parameter.name}`" + (", for each model" if parameter.per_model else "")
        allowed = str(parameter.range or ", ".join(parameter.choices))
        yield _row(name, str(parameter.default), allowed, parameter.meaning)


def _row(*cells: str) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _needs(method: Method) -> str:
    needs = []
    if method.models is not None:
        needs.append(f"{method.models} model{'s' * (method.models > 1)}")
    if method.unit == "factors":
        needs.append("LoRA adapters")
    if method.statistics is not None:
        needs.append(f"statistics: {method.statistics}")
    return ", ".join(needs)


def _passes(method: Method) -> str:
    """How often models are read by default, and which values of a parameter change it."""
    if any(each.rule for each in method.parameters.values()):
        return "reads every adapter once, and again for what its rule has to know of all modules"
    defaults = {each.name: each.default for each in method.parameters.values()}
    usual = method.readings(**defaults)
    said = [f"reads every model {_times(usual)}"]
    for name in method.first_pass.reads if method.first_pass is not None else ():
        for value in method.parameters[name].extremes():
            times = method.readings(**defaults | {name: value})
            if times != usual:
                said.append(f"{_times(times)} with {name} {value}")
    return ", ".join(said)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _more(method: Method) -> str:
    """What it writes or takes beside the weights, or how it takes them."""
    if method.masks is not None:
        return "Keeps masks, by which `alliage apply --task` rebuilds each model."
    if method.oriented:
        return "Gets linear layers as [outputs, inputs], however they are stored."
    return "Takes given signs (`signs:`) for the elected ones." if method.takes_signs else ""


def _promises(method: Method) -> str:
    kept = ["models scaled together give the result scaled"] if method.homogeneous else []
    kept += ["copies of one model give that model"] if method.identical else []
    return f"Promises: {'; '.join([*kept, 'the same bytes, whatever the threads and blocks'])}."


def _link(paper: str) -> str:
    kind, _, number = paper.partition(":")
    if kind not in ("arXiv", "doi") or " " in number:
        return paper
    home = "https://arxiv.org/abs/" if kind == "arXiv" else "https://doi.org/"
    return f"[{paper}]({home}{number})"


def _document(method: Method) -> dict[str, Any]:
    from alliage.merging.registry import plug_in_of

    plug_in = plug_in_of(method.name)
    return {
        "name": method.name,
        "summary": method.summary,
        "unit": method.unit,
        "space": method.space,
        "paper": method.paper,
        "plug_in": str(plug_in) if plug_in is not None else None,
        "departures": method.departures,
        "first_pass": method.first_pass is not None,
        "passes": _passes(method),
        "needs_data": method.statistics is not None,
        "statistics": method.statistics,
        "models": method.models,
        "masks": method.masks is not None,
        "takes_signs": method.takes_signs,
        "oriented": method.oriented,
        "random": method.random,
        "identical": method.identical,
        "homogeneous": method.homogeneous,
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
    print(f"{method.name}: {method.summary}\n")
    print(f"paper       {method.paper}")
    if document["plug_in"] is not None:
        print(f"plug-in     {document['plug_in']}")
    print(f"unit        {method.unit}, {_passes(method)}")
    print(f"needs       {_needs(method) or 'no data'}")
    print(f"works on    {'tuned − base' if method.space == 'delta' else 'weights'}")
    if more := _more(method):
        print(f"more        {more}")
    print(f"promises    {_promises(method).partition(': ')[2]}")
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
