"""Which code made a result: the commit of the working copy, whether files differed from it, and a digest of the code
that decides what is trained and measured.
"""

import ast
import hashlib
import subprocess

from phi_lab.core import paths

# What else moves a number changes seldom and is known by a row's commit: seeds and statistics in core/, how arms are
# trained in experiments/. Settings have a digest of their own.
DECISIVE = ("model", "sampling", "verify", "problems", "distill", "stages", "evaluate", "pipeline/run_data.py",
            "pipeline/stage_runner.py", "pipeline/arms.py", "pipeline/controls.py")


def code_state() -> dict:
    """{"commit": hash or None, "dirty": bool or None, "code": `code_digest`}; None where this is no clone, or git is
    missing.

    dirty: files of the package, or the data that it trains from, are not those of the commit.
    """
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "phi_lab", "data")
    return {"commit": commit or None, "dirty": None if changed is None else bool(changed), "code": code_digest()}


def code_digest() -> str:
    """A hash of `DECISIVE` code without comments and docstrings: 16 hexadecimal digits. Two results with different ones
    were made by code that may behave differently.
    """
    digest, package = hashlib.sha256(), paths.ROOT / "phi_lab"
    for name in DECISIVE:
        for path in [package / name] if name.endswith(".py") else sorted((package / name).rglob("*.py")):
            digest.update(f"{path.relative_to(paths.ROOT).as_posix()}\n{_without_prose(path.read_text())}\n".encode())
    return digest.hexdigest()[:16]


def _without_prose(source: str) -> str:
    """Python source without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails."""
    command = ["git", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if result.returncode else result.stdout.strip()
