"""Is the final answer of a completion the right one? Reward, filter and the benchmarks' judge.

`verify` extracts the answer (`extract`: never one inside `<think>`), compares numbers as exact
fractions in microseconds (`verify_text.number`), and asks a bounded worker process about everything
else (`verify_worker`, `verify_math`). Where the paper uses Math-Verify and a GPT-4o-mini second
opinion, this has its own rules around math-verify's LaTeX parser, and no second opinion yet.

    phi-lab verify --cases FILE --jobs N --out FILE
"""

import gzip
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from phi_lab import verify_worker
from phi_lab.errors import UserError
from phi_lab.verify_extract import UNPARSED, choice, extract, find, several
from phi_lab.verify_text import hostile, number, same_number

__all__ = ["Verdict", "audit", "equal", "extract", "verify", "verify_many"]
_SEVERAL = re.compile(r"[,;]|\\pm|\b(?:and|or)\b")  # a gold that asks for several answers
RIGHT, WRONG, TIMEOUT = "right", "wrong", "timeout"


class Verdict(NamedTuple):
    """`verdict`: right, wrong, unfinished (the thinking or the box never closes, or nothing follows
    it), unparsed (no answer, or one that cannot be read) or timeout; `extracted`: the answer."""

    verdict: str
    extracted: str | None


# ---- Verdicts -----------------------------------------------------------------------------------


def _quick(a, b):
    """True or False where plain Python can tell whether two answers are the same; else None."""
    if a == b:
        return bool(a)
    x, y = number(a), number(b)
    if x and y:
        return same_number(x, y)
    if not a or not b:
        return False
    words = a.isalpha() and a.isascii(), b.isalpha() and b.isascii()
    if all(words) and len(a) > 2 and len(b) > 2:
        return a.casefold() == b.casefold()
    if words[0] and len(a) > 2 and y or words[1] and len(b) > 2 and x:
        return False
    return None


def _judge(answer, gold):
    quick = _quick(answer, gold)
    if quick is not None:
        return RIGHT if quick else WRONG
    if hostile(answer) or hostile(gold):
        return UNPARSED
    return verify_worker.ask(answer, gold)


def verify(text: str, gold: str) -> Verdict:
    """The verdict on a completion, given the gold answer; see `Verdict` for the five there are.

    Answers within 2 seconds once a worker runs (the first hard question starts one)."""
    answer, why = find(text)
    if answer is not None:
        quick = _quick(answer, gold)
        if quick:
            return Verdict(RIGHT, answer)
    gold = (several(gold) or extract(gold) or gold) if "\\boxed" in gold else gold
    if answer is None:
        letter = choice(text, gold) if why == UNPARSED else None
        return Verdict(_judge(letter, gold), letter) if letter else Verdict(why, None)
    verdict = _judge(answer, gold)
    if verdict in (RIGHT, TIMEOUT):
        return Verdict(verdict, answer)
    boxed = "\\boxed" in text
    other = (several(text) if _SEVERAL.search(gold) else None) if boxed else choice(text, gold)
    if other and other != answer and _judge(other, gold) == RIGHT:
        return Verdict(RIGHT, other)
    return Verdict(verdict, answer)


def equal(a: str, b: str) -> bool:
    """Are two answer strings the same mathematical answer? False where one cannot be read."""
    return _judge(a, b) == RIGHT


def verify_many(pairs, jobs=None) -> list[Verdict]:
    """Verdicts on (text, gold) pairs, in their order; `jobs` at once (default: the cores)."""
    pairs = list(pairs)
    with ThreadPoolExecutor(jobs or verify_worker.MAX_WORKERS) as threads:
        return list(threads.map(lambda pair: verify(*pair), pairs))


# ---- Audit --------------------------------------------------------------------------------------


def audit(cases_path, jobs=None):
    """Verify a file of cases (JSON Lines, `.gz` allowed): `id`, `gold`, and `prediction_text` or
    `response`.

    Returns (rows with `verdict` and `extracted` added, summary). Where rows have `expected` or
    `correct` the summary has the agreement with them, under "main", "contested" and "unboxed".
    Raises UserError, naming file, line and field."""
    path = Path(cases_path)
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as file
        ):
            lines = file.read().split("\n")  # a text may hold other line ends
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    cases = []
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {line}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {line}: a case must be an object with id and gold")
        field = "prediction_text" if "prediction_text" in row else "response"
        for name in ("id", "gold", field):
            if name not in row:
                what = "prediction_text' or 'response" if name == field else name
                raise UserError(f"{path}: line {line}: field '{what}' is missing")
            if name != "id" and not isinstance(row[name], str):
                raise UserError(f"{path}: line {line}: field '{name}' must be a string")
        cases.append((row, row[field]))
    verdicts = verify_many([(text, row["gold"]) for row, text in cases], jobs)
    rows = [{**row, **v._asdict()} for (row, _), v in zip(cases, verdicts, strict=True)]
    summary = {"cases": len(rows), "verdicts": dict(Counter(r["verdict"] for r in rows))}
    for group in ("main", "contested", "unboxed"):
        judged = [r for r in rows if _label(r) is not None and _group(r) == group]
        if judged:
            said = [(r["verdict"] == RIGHT, _label(r)) for r in judged]
            agree = sum(a == b for a, b in said)
            summary[group] = {
                "n": len(said),
                "agree": agree,
                "agreement": agree / len(said),
                "false_positives": sum(a and not b for a, b in said),
            }
    return rows, summary


def _label(row):
    label = row.get("expected", row.get("correct"))
    return label if isinstance(label, bool) else None


def _group(row):
    if row.get("contested"):
        return "contested"
    return "unboxed" if row.get("quality") == "unboxed" else "main"
