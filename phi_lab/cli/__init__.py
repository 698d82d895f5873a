"""The command line."""

from phi_lab.cli.main import main, parser

__all__ = ["main", "parser"]
