"""Checks of the exercises about training data: filter and interval (notebook 01), packing (02), one answer a row (03),
pairs (04).
"""

import random
from collections.abc import Callable, Iterable, Sequence

from phi_lab.lab.grading import as_list, call_attempt, shown


def pack_fault(attempt: Callable, reference: Callable) -> str | None:
    rng = random.Random(0)
    short = [[rng.randint(1, 12) for _ in range(count)] for count in range(3, 13) for _ in range(20)]
    long = [rng.randint(1, 9) for _ in range(60)]  # last, since its counter-example is too long to show
    ten = ([10, 4], [6, 4], [5, 7, 5, 3], [5, 5, 5, 5], [2, 12, 5], *short, long)
    for lengths, room in (*((each, 10) for each in ten), ([200, 100, 84, 300], 300)):
        rows, best = call_attempt(attempt, list(lengths), room), reference(lengths, room)
        why = _rows_fault(rows, lengths, room)
        if not why and len(rows) > len(best):
            enough = f"{len(best)} {'is' if len(best) == 1 else 'are'} enough"
            why = f"{len(rows)} rows, and {enough}" + (f": {best}" if lengths is not long else "")
        if why:
            case = "60 random lengths from 1 to 9" if lengths is long else lengths
            return f"pack({case}, {room}) gave {shown(rows)}: {why}"


def one_per_row_fault(attempt: Callable, reference: Callable) -> str | None:
    for lengths, room in (([6, 4], 10), ([3, 3, 3], 10), ([10, 4], 10), ([2, 12, 5], 10), ([30, 12, 31], 30)):
        rows = call_attempt(attempt, list(lengths), room)
        why = _rows_fault(rows, lengths, room)
        if not why and any(len(row) != 1 for row in rows):
            why = "two answers share a row"
        if why:
            return f"one_per_row({lengths}, {room}) gave {shown(rows)}: {why}"


def _rows_fault(rows, lengths: Sequence[int], row_length: int) -> str | None:
    """What is wrong with rows of indices, whoever packs them: an index twice, a row too full, a document left out."""
    if not all(isinstance(row, Iterable) for row in rows):
        return "each row has to be a list of indices, also a row of one document: [[0], [1]]"
    used = [index for row in rows for index in row]
    if unknown := [index for index in used if index not in range(len(lengths))]:
        return f"there is no document {shown(unknown[0])}: a row lists indices, 0 to {len(lengths) - 1}, not lengths"
    if twice := [index for index in used if used.count(index) > 1]:
        return f"document {twice[0]} stands in two places"
    for number, row in enumerate(rows):
        if len(row) == 0:
            return f"row {number} is empty: what is longer than a row is left out, and needs no row either"
        if (total := sum(lengths[index] for index in row)) > row_length:
            rest = ": what is longer than a row is left out" if len(row) == 1 else ""
            return f"row {shown(row)} holds {total} tokens, and there is room for {row_length}{rest}"
    if missing := [i for i, length in enumerate(lengths) if length <= row_length and i not in used]:
        exactly = ", and it fits: it fills a row exactly" if lengths[missing[0]] == row_length else ""
        return f"document {missing[0]} ({lengths[missing[0]]} tokens) is missing{exactly}"
    return None


def pair_fault(attempt: Callable, reference: Callable) -> str | None:
    cases = (([30, 80], [78, 20], 1), ([30, 80, 50], [52, 33], 2), ([40], [90, 45, 10], 2), ([50, 53], [51, 90], 2),
             ([40, 40], [41, 42], 2))
    for right_lengths, wrong_lengths, count in cases:
        right, wrong = ([{"completion": f"{side}{n}{'b' * lengths[:place].count(n)}", "tokens": n}
                         for place, n in enumerate(lengths)]
                        for side, lengths in (("right", right_lengths), ("wrong", wrong_lengths)))
        pairs = as_list(call_attempt(attempt, list(right), list(wrong), count, random.Random(0)))
        best = reference(right, wrong, count, random.Random(0))
        gap, least = (sum(abs(a["tokens"] - b["tokens"]) for a, b in pairing) for pairing in (pairs, best))
        case = f"right answers of {right_lengths} tokens and wrong ones of {wrong_lengths}, count {count}: "
        if len(pairs) != len(best):
            return f"{case}{len(pairs)} pairs came out, not {len(best)}"
        for chosen, rejected in pairs:
            if chosen not in right or rejected not in wrong:
                pair = f"({chosen['completion']}, {rejected['completion']})"
                return f"{case}a pair is {pair}, and the right answer comes first"
        for side in zip(*pairs, strict=True):
            if len({row["completion"] for row in side}) < len(pairs):
                return f"{case}an answer was used twice"
        if gap > least:
            return f"{case}the lengths differ by {gap} tokens in all, and {least} is possible"


def keep_questions_fault(attempt: Callable, reference: Callable) -> str | None:
    cases = (
        ([("a", "right"), ("a", "wrong"), ("b", "right"), ("b", "right")], 0.0, 0.5),
        ([("a", "right"), ("a", "wrong")], 0.5, 1.0),
        ([("a", "right"), ("b", "wrong"), ("a", "right"), ("b", "wrong")], 0.0, 0.5),
        ([("a", "right"), ("a", "unfinished"), ("a", "unfinished"), ("a", "wrong")], 0.25, 0.25),
        ([("a", "right"), ("b", "wrong"), ("b", "wrong"), ("b", "wrong")], 0.5, 1.0),
        ([("a", "right"), ("b", "wrong"), ("a", "wrong"), ("b", "wrong")], 0.4, 0.6),
        ([("a", "right"), ("a", "unparsed"), ("b", "right")], 1.0, 1.0),
        ([("a", "timeout"), ("a", "timeout"), ("b", "right")], 0.0, 0.0),
        ([("a", "right"), ("b", "right"), ("b", "wrong"), ("b", "wrong")], 0.5, 1.0),
    )
    for rollouts, low, high in cases:
        got, wanted = call_attempt(attempt, list(rollouts), low, high), reference(rollouts, low, high)
        if set(got) != wanted:
            verdicts = {question: [v for q, v in rollouts if q == question] for question, _ in rollouts}
            shares = ", ".join(f"{q}: {v.count('right')} of {len(v)} right" for q, v in verdicts.items())
            return (
                f"keep_questions({rollouts}, {low}, {high}) gave {sorted(set(got))}, and it should be "
                f"{sorted(wanted)} ({shares})"
            )


def wilson_fault(attempt: Callable, reference: Callable) -> str | None:
    why = {
        (0, 20): "no right answer in 20 does not prove that there never is one", (10, 20): "",
        (5, 5): "an interval ends at 1, and five right answers do not prove that all are",
        (30, 40): "its middle lies nearer to one half than the share does", (1, 200): "",
    }
    for (right, n), reason in why.items():
        got, (low, high) = tuple(call_attempt(attempt, right, n)), reference(right, n)
        if len(got) != 2 or not (abs(got[0] - low) <= 2e-4 and abs(got[1] - high) <= 2e-4):
            if len(got) == 2 and max(abs(got[0] - 100 * low), abs(got[1] - 100 * high)) < 2e-2:
                reason = "a share lies between 0 and 1, and these are percent"
            elif not all(-0.001 <= value <= 1.001 for value in got):
                reason = "a share lies between 0 and 1; mind the brackets of the formula"
            shown_got = ", ".join(f"{float(value):.4f}" for value in got)
            return f"wilson({right}, {n}) gave ({shown_got}), and it should be ({low:.4f}, {high:.4f})" + (
                f": {reason}" if reason else "")
