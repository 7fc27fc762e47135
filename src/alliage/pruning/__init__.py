"""A shallower checkpoint: which layers to keep, and their removal on disk."""
