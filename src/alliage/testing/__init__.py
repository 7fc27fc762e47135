"""The conformance suite that every merge method passes."""
