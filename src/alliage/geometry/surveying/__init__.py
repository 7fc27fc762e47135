"""Surveys: all pairs of some models, all their modules, all metrics."""
