"""Interference: signs that conflict, parameters that are redundant, what several models keep."""
