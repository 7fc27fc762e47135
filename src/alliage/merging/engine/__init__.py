"""Carrying a plan out: blocks read, merged and written by workers, here or on a cluster."""
