"""The command line."""

from pixa.cli.program import main

__all__ = ["main"]
