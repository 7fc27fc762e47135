"""Architectures of our own, which transformers learns when their module is imported."""
