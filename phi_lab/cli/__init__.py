"""The command line."""

from phi_lab.cli.main import CHAT_GREETING, main, parser

__all__ = ["CHAT_GREETING", "main", "parser"]
