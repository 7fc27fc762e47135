from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from alliage import recipes
from alliage.errors import UsageError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rank: int = 8


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int
    inner: Inner | None = None


def test_every_problem_is_reported_with_the_nearest_key_of_its_place():
    with pytest.raises(UsageError) as caught:
        recipes.parse({"epoch": 3, "inner": {"rnak": 4, "rank": "x"}}, Outer, "tune.yml")
    messages = [str(problem) for problem in caught.value.problems]
    assert "tune.yml: unknown key epoch. Did you mean 'epochs'?" in messages
    assert "tune.yml: unknown key inner.rnak. Did you mean 'rank'?" in messages
    assert any(message.startswith("tune.yml: epochs: Field required.") for message in messages)
    assert any("inner.rank" in message and "Got 'x'" in message for message in messages)
    assert len(messages) == 4


class Checked(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2:
            raise ValueError("must be even. Did you mean 2?")
        return size

    @model_validator(mode="after")
    def _small(self) -> Checked:
        if self.size > 9:
            raise ValueError("too much")
        return self


@pytest.mark.parametrize(
    ("size", "message"),
    [(3, "tune.yml: size: must be even. Did you mean 2? Got 3."), (10, "tune.yml: too much.")],
)
def test_our_own_checks_speak_without_pydantics_preface(size, message):
    with pytest.raises(UsageError) as caught:
        recipes.parse({"size": size}, Checked, "tune.yml")
    assert [str(problem) for problem in caught.value.problems] == [message]


@pytest.mark.parametrize("content", [None, [1, 2], "text"])
def test_a_recipe_must_hold_keys_and_values(content):
    with pytest.raises(UsageError, match="expected keys and values"):
        recipes.parse(content, Outer, "tune.yml")


@pytest.mark.parametrize("text", ["a: [1", b"\xff\xfe\x00", "!!python/object:os.system {}"])
def test_what_is_no_yaml_is_refused(tmp_path, text):
    path = tmp_path / "x.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=r"x\.yml"):
        recipes.read_yaml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        recipes.read_yaml(tmp_path / "none.yml")


def test_numbers_are_those_of_yaml_1_2_and_dates_are_text():
    text = "{a: 1e-5, b: 2E3, c: -1.5e+2, d: .5e1, e: 2024-01-01, f: 1e, g: 12, h: yes}"
    assert recipes.parse_yaml(text, "x") == {
        "a": 1e-5, "b": 2000.0, "c": -150.0, "d": 5.0, "e": "2024-01-01", "f": "1e", "g": 12,
        "h": True,
    }  # fmt: skip


def test_aliases_and_merged_mappings_are_read():
    text = "a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2, e: [*x, *x]}"
    assert recipes.parse_yaml(text, "x") == {
        "a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2, "e": [{"b": 1}, {"b": 1}]},
    }  # fmt: skip


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "stands for more than 100000 values"),
        (MERGES, "stands for more than 100000 values"),
        ("a: &a [*a]", "an alias stands for what it is in"),
        ("a: &a {b: {c: *a}}", "an alias stands for what it is in"),
        ("a: 1\nb: 2\na: 3", "x.yml:3:1: is not valid YAML: the key 'a' is there twice."),
        ("b: {a: 1, a: 1}", "the key 'a' is there twice"),
        ("[" * 51 + "]" * 51, "x.yml:1:51: is not valid YAML: more than 50 levels"),
        ("{a: " * 3000, "more than 50 levels"),
        ("- " * 3000, "more than 50 levels"),
        ("a: !!python/object/apply:os.system [true]", "python/object/apply:os.system is not al"),
        ("a: !!float x", "the tag tag:yaml.org,2002:float is not allowed"),
        ("a: !mine 1", "the tag !mine is not allowed"),
        ("? [a]\n: 1", "a key must be text"),
        ("a: " + "9" * 5000, "is not valid YAML: Exceeds the limit"),
        ("a: 1\n---\nb: 2", "is not valid YAML: but found another document"),
    ],
)
def test_hostile_yaml_is_refused_before_anything_is_built(text, expected):
    with pytest.raises(UsageError) as caught:
        recipes.parse_yaml(text, "x.yml")
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_file_too_large_for_a_recipe_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "x.yml"
    path.write_bytes(b"#" * (recipes.LARGEST_FILE + 1))
    with pytest.raises(UsageError, match="is larger than 1048576 bytes"):
        recipes.read_yaml(path)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(UsageError) as caught:
        recipes.parse({"epochs": "x" * 10_000}, Outer, "tune.yml")
    assert len(str(caught.value)) < 400


def test_a_reference_that_can_be_no_path_stays_as_it_is(tmp_path):
    for ref in ("x" * 5000, "~no-such-user/model", "a\0b", "org/model"):
        assert recipes.resolve(tmp_path, ref) == ref
    (tmp_path / "model").mkdir()
    assert recipes.resolve(tmp_path, "model") == str(tmp_path / "model")
