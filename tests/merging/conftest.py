"""What tests of merges share."""

import pytest

from alliage.merging import method
from alliage.merging.registry import _REGISTRY


@pytest.fixture
def plug_in():
    """The decorator, whose methods are there for one test."""
    before = set(_REGISTRY)
    yield method
    for name in set(_REGISTRY) - before:
        del _REGISTRY[name]
