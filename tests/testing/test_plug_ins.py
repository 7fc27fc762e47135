"""What the author of a plug-in meets: the documented example, and what broken ones are told."""

import re
import tomllib
from pathlib import Path

import pytest

from alliage.errors import PlugInWarning, UsageError
from alliage.merging import describe
from alliage.testing import check_method

PAGE = Path(__file__).parents[2] / "docs" / "your-own-method.md"
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
SOURCE = FILES["shrunk_median.py"]
NEUTRAL = {"shrink": 0.0}


def test_the_documented_example_keeps_what_it_says(install_plug_in):
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    assert project["name"] == "shrunk-median"
    entries = project["entry-points"]["alliage.merge_methods"]
    ((name, value),) = entries.items()
    module, _, function = value.partition(":")
    install_plug_in(module, SOURCE, **{name: function})
    tests: dict = {}
    exec(compile(FILES["test_shrunk_median.py"], "test_shrunk_median.py", "exec"), tests)
    run = [key for key in tests if key.startswith("test_")]
    assert run == ["test_worked_out_by_hand", "test_it_keeps_what_all_methods_keep"]
    for key in run:
        tests[key]()


def test_the_page_names_all_units():
    for unit in ("block", "tensor", "factors"):
        assert f'`"{unit}"`' in PAGE.read_text()


BROKEN = {
    "it says nothing of a parameter": (
        ("        shrink: the share that is taken off.\n", ""),
        "shrink is described in the docstring's Args",
    ),
    "it has no sentence": (("and shrink it.", "and shrink it"), "first line is a sentence"),
    "it names no source": (('paper="an example"', 'paper=""'), "the source is named"),
    "its default is out of range": (("= 0.1", "= 1.1"), "shrink's default is allowed"),
    "it takes what it has no name for": (
        ("middle = (ordered", "middle = (orderd"),
        "name 'orderd' is not defined",
    ),
    "it adds something": (
        ("return (1 - shrink) * middle", "return (1 - shrink) * middle + 1e-3 * shrink"),
        "Zero deltas stay zero.",
    ),
    "it prefers the first model": (
        ("return (1 - shrink) * middle", "return (1 - shrink) * (middle + deltas[0]) / 2"),
        "Models may be permuted",
    ),
    "it has a threshold of its own": (
        ("sort(dim=0)", "where(deltas.abs() > 1e-4, 0).sort(dim=0)"),
        "Models that are scaled together",
    ),
    "it loses the shape": (("* middle", "* middle.flatten()"), "got [100] for models of [5, 20]"),
    "it answers in float64": (("* middle", "* middle.double()"), "torch.float64 != torch.float32"),
    "it divides by zero at an end": (
        ("* middle", "* middle / (1 - shrink) * (1 - shrink) / (1 - shrink)"),
        "got NaN or infinity with shrink=1",
    ),
    "it changes its inputs": (
        ("deltas.sort(dim=0).values", "deltas.copy_(deltas.sort(dim=0).values)"),
        "the models are changed",
    ),
    "it looks at the whole block": (
        ("* middle", "* middle.where(middle.abs() >= 9 * shrink * middle.abs().mean(), 0)"),
        "Blocks give what the whole gives.",
    ),
    "it looks at the whole block, for few entries": (
        ("* middle", "* middle.where(middle.abs() >= shrink * middle.abs().mean(), 0)"),
        "threads and blocks change nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_method_is_told_its_name_and_the_rule(install_plug_in, how):
    (part, replaced), said = BROKEN[how]
    assert SOURCE.count(part) == 1
    install_plug_in("odd", SOURCE.replace(part, replaced), shrunk_median="shrunk_median")
    with pytest.raises(AssertionError) as refused:
        check_method("shrunk_median", neutral=NEUTRAL)
    told = str(refused.value)
    assert told.startswith("shrunk_median breaks a rule: ")
    assert said in told


def test_what_one_model_gives_is_told_where_nothing_is_neutral(install_plug_in):
    install_plug_in("odd", SOURCE, shrunk_median="shrunk_median")
    with pytest.raises(AssertionError, match="One model at full weight gives that model"):
        check_method("shrunk_median")


UNDECLARABLE = {
    "a word": ("Annotated[float, In(0, 1)] = 0.1", 'str = "much"', "shrink: str"),
    "no unit": ('"block"', '"blocks"', "must be one of block, tensor, factors, got 'blocks'"),
    "by position": ("*, shrink", "shrink", "takes deltas, shrink by position"),
}


@pytest.mark.parametrize("how", UNDECLARABLE)
def test_what_cannot_be_declared_is_told_when_it_is_asked_for(install_plug_in, how):
    part, replaced, said = UNDECLARABLE[how]
    assert SOURCE.count(part) == 1
    install_plug_in("odd", SOURCE.replace(part, replaced), shrunk_median="shrunk_median")
    with pytest.warns(PlugInWarning), pytest.raises(UsageError) as refused:
        describe("shrunk_median")
    assert said in str(refused.value)
