"""What tests of surveys share."""

import pytest

import alliage


@pytest.fixture
def compare(family):
    """Survey models of the family."""

    def run(*models, **settings):
        return alliage.compare(family / "base", [family / model for model in models], **settings)

    return run
