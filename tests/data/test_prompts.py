from __future__ import annotations

import pytest
from pydantic import ValidationError

from alliage.data.prompts import ChoiceColumns, TargetColumns

RTE = ChoiceColumns(
    template="{premise}\nQuestion: {hypothesis} {{True}} or False?",
    choices={0: "True", 1: "False"},
)


def test_a_template_is_filled_from_columns():
    record = {"premise": "It rains {today}.", "hypothesis": "It is wet.", "label": 1}
    assert RTE.inputs_of(record) == (
        "It rains {today}.\nQuestion: It is wet. {True} or False?",
        ("True", "False"),
    )
    assert RTE.label_of(record) == 1
    assert RTE.input_columns == ("premise", "hypothesis")


@pytest.mark.parametrize(
    "template", ["{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{}", "{a", "a}", "{0.__class__}"]
)
def test_templates_hold_names_of_columns_alone(template):
    with pytest.raises(ValidationError, match="template"):
        TargetColumns(template=template, target="t")


def test_a_prompt_is_a_column_or_a_template():
    with pytest.raises(ValidationError, match="either a column or a template"):
        TargetColumns(source="s", template="{s}", target="t")
    with pytest.raises(ValidationError, match="expected prompt or template"):
        ChoiceColumns(choices="choices")


# The answer columns of COPA, HellaSwag, ARC, WinoGrande and PIQA's own text.
@pytest.mark.parametrize(
    ("answer", "first", "expected"),
    [(1, 0, 1), ("1", 0, 1), ("B", 0, 1), ("b", 0, 1), ("2", 1, 1), ("wet", 0, 1), (None, 0, None)],
)
def test_answers_are_numbers_letters_or_texts(answer, first, expected):
    columns = ChoiceColumns(prompt="q", choices="choices", answer="a", first=first)
    record = {"q": "Rain is", "choices": ["dry", "wet"], "a": answer}
    assert columns.label_of(record) == expected


@pytest.mark.parametrize("answer", [2, "C", "damp", -2])
def test_an_answer_that_is_no_choice_is_refused(answer):
    columns = ChoiceColumns(prompt="q", choices="choices", answer="a")
    with pytest.raises(ValueError, match="is none of the choices"):
        columns.label_of({"q": "Rain is", "choices": ["dry", "wet"], "a": answer})


def test_a_wrong_value_of_fixed_choices_gets_the_nearest():
    with pytest.raises(ValueError, match="Known: '0', '1'"):
        RTE.label_of({"premise": "a", "hypothesis": "b", "label": "entailment"})


def test_choices_in_columns_of_their_own_and_as_arc_has_them():
    columns = ChoiceColumns(prompt="q", choices=("one", "two"))
    assert columns.inputs_of({"q": "?", "one": "a", "two": "b"}) == ("?", ("a", "b"))
    arc = ChoiceColumns(prompt="q", choices="choices", answer="answerKey")
    record = {"q": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
    assert (arc.inputs_of(record), arc.label_of(record)) == (("?", ("a", "b")), 1)


def test_without_a_source_the_target_stands_alone():
    columns = TargetColumns(target="text")
    assert columns.inputs_of({"text": "la pluie"}) == ("",)
    assert columns.label_of({"text": "la pluie"}) == "la pluie"
