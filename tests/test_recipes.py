from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

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
