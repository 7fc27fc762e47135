"""Models of two tasks and questions on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

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


@pytest.fixture(scope="session")
def residual(tmp_path_factory):
    """A ResNet, two that were tuned from it, buffers and all, and tasks of theirs on pixels."""
    home = tmp_path_factory.mktemp("residual")
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
    torch.manual_seed(0)
    base = ResNetModel(ResNetConfig(**sizes))
    base.save_pretrained(home / "base")
    for name in "ab":
        model = ResNetForImageClassification(ResNetConfig(num_labels=2, **sizes))
        model.resnet.load_state_dict(base.state_dict())
        with torch.no_grad():
            for tensor in model.resnet.state_dict().values():
                if tensor.is_floating_point():
                    tensor += 0.1 * torch.rand_like(tensor)
        model.save_pretrained(home / name)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    examples = tuple(Example(each, i % 2) for i, each in enumerate(pixels))
    splits = {"train": examples, "validation": examples}
    return home, [Task(n, "image-classification", ("no", "yes"), splits) for n in "xy"]


@pytest.fixture
def recipe(family):
    """A recipe of the family's full models, by any method and parameters."""

    def make(method="ties", models=("sentiment", "topics"), **content):
        entries = [{"model": str(family / name)} for name in models]
        given = {"method": method, "base": str(family / "base"), "models": entries}
        return parse_recipe(given | content)

    return make
