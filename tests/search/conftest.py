"""Models of two tasks and questions on them."""

from __future__ import annotations

import pytest

from alliage.data import Example, Task
from alliage.merging import parse_recipe
from alliage.search.questions import questions_of

TEXTS = {
    "mood": ["good", "bad", "the film was awful", "great book", "not good", "very bad", "the sun"],
    "themes": ["rain", "goal", "a book", "the sun is long", "a team", "film", "short rain was bad"],
}
LABELS = {"mood": ("negative", "positive"), "themes": ("weather", "sport", "arts")}


def task(name):
    labels = LABELS[name]
    examples = [Example((text,), i % len(labels)) for i, text in enumerate(TEXTS[name] * 3)]
    return Task(name, "sequence-classification", labels, {"validation": tuple(examples)})


@pytest.fixture
def tasks():
    return [task("mood"), task("themes")]


@pytest.fixture
def asked(tasks):
    return questions_of(tasks)


@pytest.fixture
def recipe(family):
    """A recipe of the family's full models, by any method and parameters."""

    def make(method="ties", models=("sentiment", "topics"), **content):
        entries = [{"model": str(family / name)} for name in models]
        given = {"method": method, "base": str(family / "base"), "models": entries}
        return parse_recipe(given | content)

    return make
