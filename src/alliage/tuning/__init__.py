"""Recipes that make or repair checkpoints."""
