"""Which code made a result: the commit of the working copy, and whether files differed from it."""

import subprocess

from phi_lab.core import paths


def code_state() -> dict:
    """{"commit": hash or None, "dirty": bool or None}; None where this is no clone, or git is missing.

    dirty: files of the package, or the data that it trains from, are not those of the commit.
    """
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "phi_lab", "data")
    return {"commit": commit or None, "dirty": None if changed is None else bool(changed)}


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails."""
    command = ["git", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if result.returncode else result.stdout.strip()
