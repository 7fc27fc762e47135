"""Merge recipes: YAML, ours or mergekit's, checked before anything is opened."""
