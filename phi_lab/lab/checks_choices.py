"""Checks of the exercises about choices: the rate at the end (notebook 02), which answers are trained on and what they
gained (03), which mistakes are worth a pair (04).
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable

from phi_lab.lab.grading import as_list, call_attempt, shown


def rate_factor_fault(attempt: Callable, reference: Callable) -> str | None:
    for steps in (40, 100, 7):
        last_fifth = steps - steps / 5
        for step in (0, steps // 2, int(last_fifth), int(last_fifth) + 1, steps - 1):
            got, wanted = call_attempt(attempt, step, steps), reference(step, steps)
            if not abs(got - wanted) <= 1e-6:
                left = f"{steps - step} of {steps} steps are left, and the last fifth are {steps / 5:g}"
                return f"rate_factor({step}, {steps}) gave {shown(got)}, and it should be {wanted:.3g}: {left}"


def hardest_first_fault(attempt: Callable, reference: Callable) -> str | None:
    def rows_of(*questions: tuple[str, float, int]) -> list[dict]:
        return [{"id": name, "pass_rate": rate, "completion": f"{name}{n}"}
                for name, rate, answers in questions for n in range(answers)]

    easy_first = rows_of(("easy", 1.0, 2), ("hard", 0.25, 2), ("medium", 0.5, 1))
    cases = ((easy_first, 3), (rows_of(("hard", 0.1, 5), ("easy", 0.9, 2)), 4), (easy_first, 9),
             (rows_of(("a", 0.5, 4), ("b", 0.5, 4)), 6))
    for rows, count in cases:
        got, wanted = as_list(call_attempt(attempt, [dict(row) for row in rows], count)), reference(rows, count)
        asked = ", ".join(f"{n} of {name}" for name, n in Counter(row["id"] for row in rows).items())
        case = f"answers to the questions {asked}, count {count}: it took {[row['completion'] for row in got]}"
        if len({row["completion"] for row in got}) < len(got):
            return f"{case}: an answer was taken twice"
        if most := [name for name, taken in Counter(row["id"] for row in got).items() if taken > 3]:
            return f"{case}: more than three answers to {most[0]}"
        if len(got) != len(wanted):
            return f"{case}: {len(got)} answers, and it should be {len(wanted)}"
        rate = {row["id"]: row["pass_rate"] for row in rows}
        rates, hardest = (sorted(rate[row["id"]] for row in some) for some in (got, wanted))
        if rates != hardest:
            return f"{case}: their pass rates are {rates}, and the hardest have {hardest}"


def paired_gain_fault(attempt: Callable, reference: Callable) -> str | None:
    for before, after in (([0.0, 0.5, 1.0, 0.5], [0.25, 0.75, 1.0, 1.0]), ([0.2, 0.9, 0.4], [0.4, 1.0, 0.7]),
                          ([1.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.0, 0.0]), ([0.0, 1.0, 0.5], [1.0, 0.5, 0.0])):
        got, wanted = tuple(call_attempt(attempt, list(before), list(after))), reference(before, after)
        if len(got) != 3:
            return f"it has to give three numbers, (mean, low, high), and gave {shown(got)}"
        if not all(abs(one - other) <= 1e-4 for one, other in zip(got, wanted, strict=True)):
            numbers = (", ".join(f"{value:+.3f}" for value in values) for values in (got, wanted))
            why = _gain_mistake(got, before, after)
            return "before {}, after {}: it gave ({}), and it should be ({}){}".format(before, after, *numbers, why)


def _gain_mistake(got: tuple, before: list[float], after: list[float]) -> str:
    """What was computed instead of the gain with its interval, if it is a known mistake."""
    gains, n = [new - old for old, new in zip(before, after, strict=True)], len(before)
    mean, s = statistics.mean(gains), statistics.stdev(gains)
    unpaired = math.sqrt((statistics.variance(before) + statistics.variance(after)) / n)
    for why, middle, error in (
        ("it is after minus before, so that a loss is below zero", -mean, s / math.sqrt(n)),
        ("the standard deviation is divided by n - 1, not by n", mean, statistics.pstdev(gains) / math.sqrt(n)),
        ("the standard deviation of a mean is s / sqrt(n)", mean, s),
        ("s is the root of the variance", mean, s * s / math.sqrt(n)),
        ("subtract problem by problem: how much harder one is than another then drops out", mean, unpaired),
        ("shares stay shares: it is not in percent", 100 * mean, 100 * s / math.sqrt(n)),
    ):
        wanted = (middle, middle - 1.96 * error, middle + 1.96 * error)
        if max(abs(one - other) for one, other in zip(got, wanted, strict=True)) < 1e-4:
            return f": {why}"
    return ""


def plausible_fault(attempt: Callable, reference: Callable) -> str | None:
    for logprobs, limit, why in (
        ([-2.0, -9.0, -5.0], 6.0, "-9 nats are once in 8,103 times, and the limit is once in 403"),
        ([-6.0, -6.1], 6.0, "exactly at the limit is likely enough"),
        ([-0.5, -3.0, -20.0], 2.0, "the limit is an argument, not always 6"),
    ):
        wrong = [{"completion": f"w{number}"} for number in range(len(logprobs))]
        got, wanted = as_list(call_attempt(attempt, wrong, list(logprobs), limit)), reference(wrong, logprobs, limit)
        if strange := [one for one in got if one not in wrong]:
            return f"it gave {shown(strange[0])} among others: give the answers themselves, not places or truth values"
        if got != wanted:
            kept, right = ([wrong.index(row) for row in rows if row in wrong] for rows in (got, wanted))
            return f"log-probabilities {logprobs}, limit {limit:g}: it kept {kept}, and it should keep {right}: {why}"
