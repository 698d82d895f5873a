r"""The small world's main domain: arithmetic in several steps.

A model of under a million parameters cannot work out (84-57+36)/3 in its head, but it can when it writes one column
after the other (`worked_solutions.py`). Long chains of thought are therefore *necessary* here, as they are for a 3.8 B
model on competition mathematics. Every problem is a chain of one to seven operations (its level) in one of several
wordings (`wordings.py`), or, with two to four, a sum, difference or product of fractions.

What a run asks its teacher has one to five operations (`DISTILLED_LEVELS`), the benchmark `hard` three to seven
(`HARD_LEVELS`), and what a student answers in Rollout DPO and GRPO one to seven (`LEVELS`): `hard` and the student's
own questions go beyond what any of the teacher's answers covers.
"""

import random
from fractions import Fraction

from phi_lab.core.errors import UserError
from phi_lab.problems.problem import Problem, Step, sample_from_split
from phi_lab.problems.wordings import FRACTION_WORDINGS, WORDINGS, Operation

MAX_NUMBER = 99  # of all numbers but a fraction's denominator: with three digits learning took three times as long
OPERATOR_WEIGHTS = (35, 35, 16, 14)  # how often an operation of a longer chain is +, -, *, /
SINGLE_OPERATOR_WEIGHTS = (42, 42, 8, 8)  # the same for problems with one operation
ONE_DIGIT_SHARE = {1: 0.8, 2: 0.3}  # share of one-digit right operands, by level
ONE_DIGIT_SHARE_ABOVE = 0.15  # the same for three operations or more
FRACTION_LEVELS = (2, 3, 4)
FRACTION_SHARE = 0.2  # of the problems of these levels
LEVELS = (1, 2, 3, 4, 5, 6, 7)
DISTILLED_LEVELS = (1, 2, 3, 4, 5)
HARD_LEVELS = (3, 4, 5, 6, 7)
SINGLE_SHARE = 3 / 11  # of the problems of several levels, those with one operation; the other levels share alike
MOST_REPEATED = 20_000  # draws in a row of problems that are there already, after which no more are looked for


def sample(rng: random.Random, level: int, family: str = "") -> Problem:
    """Sample one problem with `level` operations (1 to 7), of a family of wordings or, without one, of any."""
    if family == "fraction" or not family and level in FRACTION_LEVELS and rng.random() < FRACTION_SHARE:
        return _sample_fraction(rng, level)
    family = family or rng.choices(list(WORDINGS), [weight for weight, _ in WORDINGS.values()])[0]
    share = ONE_DIGIT_SHARE.get(level, ONE_DIGIT_SHARE_ABOVE)
    return _word_chain(rng, family, *_sample_chain(rng, level, share))


def sample_split(rng: random.Random, level: int, split: str, family: str = "") -> Problem:
    """Sample until the problem falls into `split` (see `Problem.split`)."""
    return sample_from_split(lambda rng, level: sample(rng, level, family), rng, level, split)


def sample_problems(
    count: int, seed: int, split: str = "train", levels: tuple[int, ...] = DISTILLED_LEVELS
) -> list[Problem]:
    """`count` different problems of one split: no two share operands and operators.

    Every level and family has its exact share (`strata`), so that no set is short of a skill by chance. Raises
    UserError for more than there are.
    """
    rng, problems = random.Random(f"{split}-{seed}"), dict[str, Problem]()
    for (level, family), size in strata(count, levels).items():
        wanted, repeated = len(problems) + size, 0
        while len(problems) < wanted:
            problem = sample_split(rng, level, split, family)
            repeated = repeated + 1 if problem.key in problems else 0
            if repeated > MOST_REPEATED:
                raise UserError(f"the small world has no {count:,} different problems of the split {split}, as hardly "
                                f"any of {level} operation{'s' * (level > 1)} is left: ask for fewer")
            problems.setdefault(problem.key, problem)
    shuffled = list(problems.values())
    rng.shuffle(shuffled)
    return shuffled


def strata(count: int, levels: tuple[int, ...]) -> dict[tuple[int, str], int]:
    """How many of `count` problems come from each (level, family): its share, rounded by largest remainders."""
    shares = {}
    for level in levels:
        weight = _level_share(level, levels)
        fractions = FRACTION_SHARE if level in FRACTION_LEVELS else 0.0
        for family, (often, _) in WORDINGS.items():
            shares[level, family] = weight * (1 - fractions) * often / sum(each for each, _ in WORDINGS.values())
        if fractions:
            shares[level, "fraction"] = weight * fractions
    sizes = {stratum: int(count * share) for stratum, share in shares.items()}
    by_remainder = sorted(shares, key=lambda stratum: sizes[stratum] - count * shares[stratum])
    for stratum in by_remainder[: count - sum(sizes.values())]:
        sizes[stratum] += 1
    return sizes


def _level_share(level: int, levels: tuple[int, ...]) -> float:
    if 1 not in levels or len(levels) == 1:
        return 1 / len(levels)
    return SINGLE_SHARE if level == 1 else (1 - SINGLE_SHARE) / (len(levels) - 1)


def apply(operator: str, left: int, right: int) -> int:
    """The integer result of one step; division is exact by construction."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left // right


def _sample_chain(rng: random.Random, level: int, one_digit_share: float) -> tuple[int, list[Operation]]:
    """A start value and `level` operations; no intermediate value leaves 1 to MAX_NUMBER."""
    while True:
        start = value = rng.randint(11, MAX_NUMBER)
        operations: list[Operation] = []
        for _ in range(level):
            operator = rng.choices("+-*/", SINGLE_OPERATOR_WEIGHTS if level == 1 else OPERATOR_WEIGHTS)[0]
            low, high = (2, 9) if rng.random() < one_digit_share else (11, MAX_NUMBER)
            room = {"+": MAX_NUMBER - value, "-": value - 1}.get(operator, 0)
            if room >= low:
                right = rng.randint(low, min(high, room))
            elif operator == "*" and 2 * value <= MAX_NUMBER:
                right = rng.randint(2, min(9, MAX_NUMBER // value))
            else:
                divisors = [d for d in range(2, 10) if value % d == 0 and value // d > 1]
                if operator != "/" or not divisors:
                    break
                right = rng.choice(divisors)
            operations.append((operator, right))
            value = apply(operator, value, right)
        if len(operations) == level:
            return start, operations


def _key(start: int, operations: list[Operation]) -> str:
    """Canonical operands and operators; the first two operands are sorted where they commute."""
    (operator, right), rest = operations[0], operations[1:]
    left, right = sorted((start, right)) if operator in "+*" else (start, right)
    return f"{left}{operator}{right}" + "".join(f"{op}{number}" for op, number in rest)


def _word_chain(rng: random.Random, family: str, start: int, operations: list[Operation]) -> Problem:
    """The problem that asks for a chain in a wording of `family`."""
    value, steps = start, []
    for operator, right in operations:
        steps.append((operator, value, right))
        value = apply(operator, value, right)
    prompt = WORDINGS[family][1](rng, start, operations)
    key = _key(start, operations)
    return Problem("arithmetic", family, len(operations), key, prompt, str(value), tuple(steps))


def _sample_fraction(rng: random.Random, level: int) -> Problem:
    """Two fractions: a product (level 2), a sum or difference (level 3), or that times a whole number (level 4)."""
    while True:
        a, c = rng.randint(1, 9), rng.randint(1, 9)
        b, d = rng.randint(2, 9), rng.randint(2, 9)
        operator, e = "*" if level == 2 else rng.choice("+-"), rng.randint(2, 9) if level == 4 else 1
        numerator = a * c if level == 2 else apply(operator, a * d, c * b)
        if 0 < numerator * e <= MAX_NUMBER:
            break
    steps = fraction_steps(a, b, operator, c, d, e)
    text = f"{a}/{b}{operator}{c}/{d}"
    pair = sorted(((a, b), (c, d))) if operator in "+*" else [(a, b), (c, d)]
    key = f"fraction:{pair[0]}{operator}{pair[1]}"
    if level == 4:
        text, key = f"({text})*{e}", f"{key}*{e}"
    prompt = rng.choice(FRACTION_WORDINGS).format(text)
    return Problem("arithmetic", "fraction", level, key, prompt, str(Fraction(numerator * e, b * d)), tuple(steps))


def fraction_steps(a: int, b: int, operator: str, c: int, d: int, e: int = 1) -> list[Step]:
    """The steps of (a/b operator c/d)*e in whole numbers: the denominator first, then the numerator."""
    steps = [("*", b, d), ("*", a, c)]
    if operator != "*":
        steps[1:] = [("*", c, b), ("*", a, d), (operator, a * d, c * b)]
    return steps if e == 1 else [*steps, ("*", apply(*steps[-1]), e)]
