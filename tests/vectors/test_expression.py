"""The oracle is arithmetic by hand, and Python's own on random expressions."""

from __future__ import annotations

import random
import re

import pytest

from alliage.errors import UsageError
from alliage.vectors import parse_expression


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("sentiment", "topics", "toxic", "topics-lora"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(text, *definitions):
    return {term.name: term.weight for term in parse_expression(text, definitions)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sentiment", {"sentiment": 1}),
        ("sentiment - 0.5 * topics + toxic", {"sentiment": 1, "topics": -0.5, "toxic": 1}),
        (" -(sentiment - topics) / 4", {"sentiment": -0.25, "topics": 0.25}),
        ("2 * (3 - 1) * sentiment / (1 / 2)", {"sentiment": 8}),
        ("+sentiment + sentiment", {"sentiment": 2}),
        ("1e-3 * topics\n+ toxic", {"topics": 0.001, "toxic": 1}),
        ("'topics-lora' - topics", {"topics-lora": 1, "topics": -1}),
        ("'org/model@main' - topics", {"org/model@main": 1, "topics": -1}),
    ],
)
def test_an_expression_is_a_weight_for_each_model(text, expected):
    found = weights(text)
    assert found == expected
    assert list(found) == list(expected)


def test_decimals_are_the_ones_written():
    assert weights("(0.1 + 0.2) * topics") == {"topics": 0.3}  # 0.1 + 0.2 != 0.3 in floats
    found = weights("toxic + topics - 0.9 * topics - 0.1 * topics")
    assert found == {"toxic": 1, "topics": 0}


def test_random_sums_agree_with_python():
    draw = random.Random(0)
    for _ in range(50):
        parts = [
            f"{draw.choice('+-')} {draw.randint(1, 9)} * {draw.choice(['topics', 'toxic'])} / 8"
            for _ in range(6)
        ]
        text = f" {' '.join(parts)} + toxic * 100"
        expected = [eval(text, {"topics": t, "toxic": 1 - t}) for t in (1, 0)]
        found = weights(text)
        assert [found.get("topics", 0), found["toxic"]] == expected


def test_definitions_name_models_and_go_before_folders(folders):
    terms = parse_expression("topics - b", ["topics=x/y", "b=topics"])
    assert [(term.name, term.ref) for term in terms] == [("topics", "x/y"), ("b", "topics")]


def test_two_names_of_one_model_are_one_term(folders):
    (folders / "link").symlink_to(folders / "topics")
    found = parse_expression("a + 2 * b + link", ["a=topics", f"b={folders / 'topics'}"])
    assert [(term.name, term.weight) for term in found] == [("a", 4)]


@pytest.mark.parametrize(
    ("text", "definitions", "message"),
    [
        ("sentiment * topics", [], r"column 1: '\*' of two models"),
        ("toxic + 2 / topics", [], r"column 9: '/' by a model"),
        ("topics / (1 - 1)", [], r"column 1: division by zero"),
        ("topics ** 2", [], r"column 1: '\*\*' does not combine"),
        ("  ~topics", [], r"column 3: '~' does not combine"),
        ("not topics", [], "'not' does not combine"),
        ("topics + 1", [], r"column 1: '\+' of a number and a model"),
        ("2 * 3", [], "is a number; expected at least one model"),
        ("topics - topics", [], "nothing is left"),
        ("a - b", ["a=topics", "b=./topics"], "nothing is left"),
        ("", [], "column 1: empty"),
        ("topics +", [], r"column 9: invalid syntax"),
        ("topics - − toxic", [], r"column 10: .*U\+2212"),
        ("topics\0", [], "null bytes"),
        ("(" * 5000 + "topics" + ")" * 5000, [], "nested"),
        ("-" * 50_000 + "topics", [], "nested too deeply"),
        (" + ".join(["topics"] * 20_000), [], "nested too deeply"),
        ("topic - toxic", [], r"column 1: no model 'topic'. Did you mean 'topics'"),
        ("ééé - topic", ["ééé=toxic"], r"column 7: no model 'topic'"),
        ("topics-lora", [], "column 8: no model 'lora'.* quote a path"),
        ("topics.v2", [], r"topics.v2 is no name. Quote it: 'topics.v2'"),
        ("f(topics)", [], r"f\(topics\) is neither a model nor a number"),
        ("True * topics", [], "True is neither"),
        ("2j * topics", [], "2j is neither"),
        ("1e999 * topics", [], "column 1: the number is too large"),
        ("1e300 * 1e300 * topics", [], "weight of topics is too large"),
        ("9" * 400 + " * topics", [], "weight of topics is too large"),
        ("a - topics", ["a=toxic", "a=topics"], "a is toxic already"),
        ("topics", ["b=toxic"], r"b=toxic: is defined but not in the expression"),
        ("topics", ["toxic"], r"toxic: expected NAME=REF"),
        ("topics", ["b-c=toxic"], "expected NAME=REF, the name of letters"),
    ],
)
def test_refusals_name_the_place_and_the_reason(text, definitions, message):
    with pytest.raises(UsageError) as caught:
        parse_expression(text, definitions)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_all_problems_come_at_once():
    with pytest.raises(UsageError) as caught:
        parse_expression("nope * topics + gone * nowhere / 0", ["x=toxic"])
    # Two products, three unknown names, a definition without a use.
    assert len(caught.value.problems) == 6
