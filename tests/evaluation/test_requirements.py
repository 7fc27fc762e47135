from __future__ import annotations

import pytest

from alliage.errors import UsageError
from alliage.evaluation.requirements import Requirement, check_requirements, parse_requirements

KNOWN = ("accuracy", "f1", "smce")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smce<=0.03", ("smce", "<=", 0.03, False)),
        ("accuracy>=0.9*base", ("accuracy", ">=", 0.9, True)),
        ("accuracy >= base * 0.9", ("accuracy", ">=", 0.9, True)),
        (" f1 > base ", ("f1", ">", 1.0, True)),
        ("f1<1e-2", ("f1", "<", 0.01, False)),
        ("f1 > -.5", ("f1", ">", -0.5, False)),
    ],
)
def test_conditions_are_read(text, expected):
    (found,) = parse_requirements([text], KNOWN, has_base=True)
    assert found == Requirement(text, *expected)


@pytest.mark.parametrize(
    "text",
    [
        "", "f1", "f1>=", "f1=0.5", "f1==0.5", ">=0.5", "f1>=0.5*", "f1>=*base", "f1>=x",
        "f1>=0.9*bas", "f1>=nan", "f1>=inf", "f1>=0.5*2", "f1>=base*base", "f1>=0.5 0.6",
        "f1>=__import__('os')", "0.5<=f1", "f1>=0.1<0.2",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="is no condition"):
        parse_requirements([text], KNOWN, has_base=True)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(UsageError) as caught:
        parse_requirements(["acuracy>=0.9", "f1>=base", "f1"], KNOWN, has_base=False)
    texts = [str(problem) for problem in caught.value.problems]
    assert len(texts) == 3
    assert "no such metric. Did you mean 'accuracy'?" in texts[0]
    assert "Name it with --against." in texts[1]


def check(text, values, references=None):
    requirements = parse_requirements([text], KNOWN, has_base=True)
    found = check_requirements(requirements, values, references or {}, "m")
    return [str(problem) for problem in found]


def test_a_bound_may_be_reached_or_not():
    on = {"t": {"f1": 0.5}}
    assert check("f1>=0.5", on) == check("f1<=0.5", on) == []
    assert check("f1>0.5", on) == ["m on t: f1 is 0.5000, required > 0.5000."]
    assert check("f1<0.5", on) == ["m on t: f1 is 0.5000, required < 0.5000."]


def test_a_relative_bound_is_of_the_same_task():
    values = {"a": {"accuracy": 0.80}, "b": {"accuracy": 0.80}}
    references = {"a": {"accuracy": 0.88}, "b": {"accuracy": 0.90}}
    assert check("accuracy>=0.9*base", values, references) == [
        "m on b: accuracy is 0.8000, required >= 0.8100 (0.9*0.9000)."
    ]


def test_nan_meets_nothing():
    assert len(check("f1>=0", {"t": {"f1": float("nan")}})) == 1
    assert len(check("f1<=1", {"t": {"f1": float("nan")}})) == 1


def test_tasks_without_the_metric_are_passed_over():
    assert check("f1>=0.4", {"t": {"f1": 0.5}, "numbers": {"mse": 0.1}}) == []


def test_what_was_not_measured_is_not_met():
    assert check("smce<=1", {"t": {"f1": 0.5}}) == ["m: smce was not measured on any task."]
    assert check("f1>=base", {"t": {"f1": 0.5}}, {"u": {"f1": 0.1}}) == [
        "m on t: f1 of base was not measured."
    ]
