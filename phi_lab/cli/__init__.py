"""The command line: `phi-lab COMMAND --help` explains each command with an example."""

from phi_lab.cli.main import build_parser, main

__all__ = ["build_parser", "main"]
