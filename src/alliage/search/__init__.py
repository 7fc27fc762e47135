"""Choosing how to merge by running what a merge would make: points, soups, learned coefficients."""
