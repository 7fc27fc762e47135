"""Merge methods, one file for each."""
