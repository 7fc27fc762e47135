"""The conformance suite that every merge method passes."""

from alliage.testing.conformance import check_method

__all__ = ["check_method"]
