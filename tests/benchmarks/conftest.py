"""The smallest family of models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def family(tmp_path_factory) -> Path:
    """A base and four tuned models; not to be changed."""
    from benchmarks._models import make_family

    return make_family("0.1M", tmp_path_factory.mktemp("models"))
