"""Whole experiments, and the results store."""
