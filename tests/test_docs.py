"""README and docs name what exists: modules, files, links, commands, the shipped rollout and the published chains.

python -m pytest tests/test_docs.py
"""

import ast
import re
import shlex
from pathlib import Path

import pytest

from phi_lab import cli
from phi_lab.core.files import read_rows
from phi_lab.model import chat

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("C*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"(?<![\w./-])(?:phi_lab|tests|scripts|notebooks|docs|data)/[\w./-]*")
DOTTED = re.compile(r"(?<![\w./-])phi_lab(?:\.[A-Za-z_]\w*)+")
NAME_IN_FILE = re.compile(r"`(\w+)` (?:in|of) `(phi_lab/[\w/]+\.py)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def text(page):
    return page.read_text(encoding="utf-8")


def defined_in(module: Path) -> set[str]:
    """Names that a module defines or imports at its top level."""
    names = set()
    for node in ast.parse(text(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def exists(dotted: str) -> bool:
    """Whether phi_lab.x.y is a package, a module, or a top-level name of one."""
    place = ROOT
    for part in dotted.split("."):
        if (place / part).is_dir():
            place = place / part
        elif (place / f"{part}.py").is_file():
            place = place / f"{part}.py"
        else:
            return part in defined_in(place if place.is_file() else place / "__init__.py")
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_files_and_links_exist(page):
    missing = [name.rstrip(".") for name in FILE.findall(text(page)) if not (ROOT / name.rstrip(".")).exists()]
    missing += [name for name in DOTTED.findall(text(page)) if not exists(name)]
    missing += [f"{name} in {place}" for name, place in NAME_IN_FILE.findall(text(page))
                if name not in defined_in(ROOT / place)]
    missing += [link for link in LINK.findall(text(page)) if not (page.parent / link).exists()]
    assert not missing, f"{page.name} names what does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_ones_that_the_parser_takes(page):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    shell = "\n".join(block for language, block in blocks if language in ("", "sh", "bash")).replace("\\\n", " ")
    for line in shell.splitlines():
        words = shlex.split(line, comments=True)
        start = next((at for at, word in enumerate(words) if word.rsplit("/", 1)[-1] in ("phi-lab", "phi_lab")), None)
        if start is None or "pip" in words or words[start + 1 :] == ["--help"]:
            continue
        stop = next((at for at, word in enumerate(words) if word in ("&&", "&", "|") and at > start), len(words))
        try:
            cli.build_parser().parse_args(words[start + 1 : stop])
        except SystemExit:
            pytest.fail(f"{page.name}: {line}")


def test_lines_of_the_log_are_short():
    assert not [line for line in text(ROOT / "docs" / "log.md").splitlines() if len(line) > 120]


def test_readme_shows_a_rollout_that_is_shipped():
    (block,) = re.findall(r"```\n(Compute .*?)\n\n(.*?)\n```", text(ROOT / "README.md"), re.DOTALL)
    rollouts = read_rows(ROOT / "data" / "distilled" / "rollouts.jsonl.gz")
    shown = [row for row in rollouts if (row["prompt"], chat.format_completion(row["completion"])) == block]
    assert shown and shown[0]["verdict"] == "right"


def attempt_line(rung: str, log: int, attempt: str, rows: dict[int, dict]) -> str:
    """A line of the table of attempts: accuracies in percent, and the difference of two shares of 1,500 answers."""
    cells = []
    for seed in (103, 104):
        if seed not in rows:
            cells.append("–")
            continue
        one, other = rows[seed]["accuracy"], rows[seed]["rival"]
        half = 1.96 * ((one * (1 - one) + other * (1 - other)) / 1500) ** 0.5
        low, middle, high = (100 * (one - other + side * half) for side in (-1, 0, 1))
        cells.append(f"{100 * one:.1f} against {100 * other:.1f}, {middle:+.1f} [{low:+.1f}, {high:+.1f}]")
    return f"| {rung} | {attempt} | {log} | {cells[0]} | {cells[1]} |"


def test_the_table_of_attempts_follows_from_its_rows():
    attempts: dict[tuple, dict] = {}
    for row in read_rows(ROOT / "data" / "attempts.jsonl"):
        attempts.setdefault((row["rung"], row["log"], row["attempt"]), {})[row["seed"]] = row
    page = text(ROOT / "docs" / "results.md")
    (block,) = re.findall("<!-- attempts: .*? -->\n(.*?)\n<!-- end of attempts -->", page, re.DOTALL)
    assert block.splitlines()[2:] == [attempt_line(*key, rows) for key, rows in attempts.items()]
    assert {key[0] for key in attempts} == {"Rollout DPO", "GRPO"} and len(attempts) >= 12
