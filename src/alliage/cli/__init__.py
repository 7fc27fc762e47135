"""The command line: one file for each command; the only package that prints or exits."""

from alliage.cli.app import main

__all__ = ["main"]
