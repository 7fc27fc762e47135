from pathlib import Path

import pytest

from tests.statistics.models import save_language_models, save_other_heads, save_vision_transformer


@pytest.fixture(scope="session")
def zoo(family, tmp_path_factory) -> Path:
    """A folder with gpt, t5, vit, tags and stars."""
    home = tmp_path_factory.mktemp("zoo")
    save_language_models(home)
    save_vision_transformer(home)
    save_other_heads(home, family / "base")
    return home
