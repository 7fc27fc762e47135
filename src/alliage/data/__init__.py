"""Data sets into examples."""
