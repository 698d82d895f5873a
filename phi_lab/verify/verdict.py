"""Is the final answer of a completion the right one? Reward, filter and the benchmarks' judge.

`verify` extracts the answer (`extraction`: never one inside `<think>`), compares numbers as exact fractions in
microseconds (`text.number`), and asks a bounded worker process about everything else (`worker`,
`compare`). It fails closed: an answer that was not understood is not right. Where the paper uses Math-Verify and a
GPT-4o-mini second opinion, this has its own rules and parser, and `phi_lab.verify.judge`.

    phi-lab verify --cases FILE --jobs N --out FILE
    phi-lab verify --explain "The answer is \\boxed{1/2}." --gold 0.5
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from phi_lab.verify import choices, worker
from phi_lab.verify.extraction import (
    TAIL,
    UNFINISHED,
    UNPARSED,
    alone,
    answer_part,
    at_a_glance,
    extract,
    find,
    several,
)
from phi_lab.verify.text import hostile, number, same_number

__all__ = ["Verdict", "equal", "extract", "verify", "verify_many"]
MOST = 20  # different boxes that may stand together
RIGHT, WRONG, TIMEOUT = "right", "wrong", "timeout"


class Verdict(NamedTuple):
    """`verdict`: right, wrong, unfinished (the thinking or the box never closes, or nothing follows
    it), unparsed (no answer, or one that cannot be read) or timeout; `extracted`: the answer;
    `rule`: where it was read and what decided."""

    verdict: str
    extracted: str | None
    rule: str = ""


# ---- Verdicts -----------------------------------------------------------------------------------


def _quick(a: str, b: str) -> bool | None:
    """True or False where plain Python can tell whether two answers are the same; else None."""
    if a == b:
        return bool(a.strip())
    if a.isdigit() and b.isdigit() and (a + b).isascii() and len(a) <= 30 >= len(b):  # the commonest, twice as fast
        return int(a) == int(b)
    x, y = number(a), number(b)
    if x and y:
        if "\\$" in a + b and "%" in a + b:
            return None  # eight dollars are not eight per cent
        return same_number(x, y)
    return None if a and b else False


def _judge(answer: str, gold: str, strict: bool, seconds: float = worker.DEADLINE) -> tuple[str, str]:
    """A verdict on an answer and the rule that decided; a worker may take `seconds`."""
    quick = _quick(answer, gold)
    if quick is not None:
        return (RIGHT if quick else WRONG), ("text" if answer == gold else "number")
    if hostile(answer) or hostile(gold):
        return UNPARSED, "a form that is not parsed"
    return worker.ask(answer, gold, strict, seconds)


def verify(text: str, gold: str, strict: bool = True) -> Verdict:
    """The verdict on a completion, given the gold answer; see `Verdict` for the five there are.

    `strict`: an answer counts only if it was read without doubt, as for a reward or for training data; without, by the
    conventions of public benchmarks (docs/verifier.md). Answers within 2 seconds of processor time once a worker runs
    (the first hard question starts one), within 4 where several boxes stand together."""
    ending = at_a_glance(text)
    if ending is not None and "\\boxed" not in gold:
        quick = _quick(ending, gold)
        if quick is not None:
            return Verdict(RIGHT if quick else WRONG, ending, "box; text" if ending == gold else "box; number")
    if text == gold and text.strip():
        return Verdict(RIGHT, gold, "text")
    answer, why, read = find(text, strict)
    if answer is not None and "\\boxed" not in gold and (read != "box" or alone(text)):
        quick = _quick(answer, gold)
        if quick:
            return Verdict(RIGHT, answer, f"{read}; {'text' if answer == gold else 'number'}")
    return _verify(text, gold, strict, answer, why, read)


def _verify(text: str, gold: str, strict: bool, answer: str | None, why: str, read: str) -> Verdict:
    """The verdict where a glance did not tell."""
    if "\\boxed" in gold:
        joined = several(gold, loose=True)
        gold = ", ".join(joined) if len(joined) > 1 else (extract(gold) or gold)
    letter = None
    if why != UNFINISHED and choices.LETTER.fullmatch(gold):
        letter = choices.choice((answer_part(text) or "")[-TAIL:], gold)
    boxed = answer is not None and read == "box"
    if letter and letter.answer and (not boxed or (not _is_letter(answer or "") and "nswer" in text)):
        verdict, rule = _judge(letter.answer, gold, strict)
        return Verdict(verdict, letter.answer, f"{letter.rule}; {rule}")
    if answer is None:
        return Verdict(why, None, read)
    if choices.LETTER.fullmatch(gold) and choices.denied(answer):
        return Verdict(WRONG, answer, f"{read}; a denied choice")
    if read == "box" and not alone(text) and len(chain := several(text)) > 1:
        return _chain(chain, gold, strict)
    verdict, rule = _judge(answer, gold, strict)
    return Verdict(verdict, answer, f"{read}; {rule}")


def _chain(chain: list[str], gold: str, strict: bool) -> Verdict:
    """The verdict on several boxes that stand together: one answer in parts, or one answer said several ways. The parts
    share the time of one answer, and the first that is not right ends it."""
    different = list(dict.fromkeys(chain))
    if len(different) > MOST:
        return Verdict(UNPARSED, None, "boxes; too many")
    joined = ", ".join(chain)
    verdict, rule = _judge(joined, gold, strict)
    if verdict in (RIGHT, TIMEOUT):
        return Verdict(verdict, joined, f"boxes; {rule}")
    for count, answer in enumerate(different):
        if _judge(answer, gold, strict, worker.DEADLINE / len(different))[0] != RIGHT:
            return Verdict(WRONG if count else verdict, joined, f"boxes; {rule}")
    return Verdict(RIGHT, chain[-1], "boxes; each the same")


def _is_letter(answer: str) -> bool:
    return bool(choices.LETTER.match(answer.replace("\\text", "").replace("{", " ").replace("}", " ")))


def equal(a: str, b: str, strict: bool = True) -> bool:
    """Is the answer `a` the same as the gold `b`? False where one cannot be read."""
    return _judge(a, b, strict)[0] == RIGHT


def verify_many(pairs: Iterable[tuple[str, str]], jobs: int | None = None, strict: bool = True) -> list[Verdict]:
    """Verdicts on (text, gold) pairs, in their order; `jobs` at once (default: the cores)."""
    pairs = list(pairs)
    with ThreadPoolExecutor(jobs or worker.MAX_WORKERS) as threads:
        return list(threads.map(lambda pair: verify(pair[0], pair[1], strict), pairs))
