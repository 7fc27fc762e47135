"""Models on disk: find, open, stream, check, write. The only package that touches weight files."""

from alliage.checkpoints.checkpoint import Checkpoint, open  # noqa: A004
from alliage.checkpoints.spec import TensorSpec

__all__ = ["Checkpoint", "TensorSpec", "open"]
