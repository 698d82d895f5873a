"""Is the final answer of a completion the right one? Reward, filter and the benchmarks' judge.

`verify` extracts the answer (`extract`: never one inside `<think>`), compares numbers as exact
fractions in microseconds (`verify_text.number`), and asks a bounded worker process about everything
else (`verify_worker`, `verify_math`). Where the paper uses Math-Verify and a GPT-4o-mini second
opinion, this has its own rules around math-verify's LaTeX parser, and `phi_lab.verify.judge`.

    phi-lab verify --cases FILE --jobs N --out FILE
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from phi_lab.verify import worker
from phi_lab.verify.extraction import UNPARSED, choice, extract, find, several
from phi_lab.verify.text import hostile, number, same_number

__all__ = ["Verdict", "equal", "extract", "verify", "verify_many"]
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
    return None if a and b else False


def _judge(answer, gold):
    quick = _quick(answer, gold)
    if quick is not None:
        return RIGHT if quick else WRONG
    if hostile(answer) or hostile(gold):
        return UNPARSED
    return worker.ask(answer, gold)


def verify(text: str, gold: str) -> Verdict:
    """The verdict on a completion, given the gold answer; see `Verdict` for the five there are.

    Answers within 2 seconds once a worker runs (the first hard question starts one)."""
    answer, why = (gold, "") if text == gold else find(text)
    if answer is not None and _quick(answer, gold):
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
    with ThreadPoolExecutor(jobs or worker.MAX_WORKERS) as threads:
        return list(threads.map(lambda pair: verify(*pair), pairs))
