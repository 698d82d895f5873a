r"""Worked solutions of arithmetic problems, with the columns written out: what the script teacher answers.

    47+38,-12.47+38:7+8=15,4+3+1=8;85,-12.85-12:5-2=3,8-1=7;73.

First the plan; then for every step its columns, its result and the operations that remain. There are three styles:
`terse` (no plan, and only the results of the columns: 47+38:15,8;85.), `checking` (some steps are undone by their
inverse) and `backtracking` (slips that are noticed and repaired). So right answers to one prompt differ in length, and
the short way is the risky one. Everything that the next step needs stands just before it: that is what lets a tiny
model learn this (docs/log.md).
"""

import random
import re
from math import gcd

from phi_lab.problems.arithmetic import apply
from phi_lab.problems.problem import Problem, Step
from phi_lab.problems.wordings import INVERSE

STYLES = ("terse", "checking", "backtracking")
CHECK_RATE = 0.4  # share of steps that a checking solution undoes
SLIP_RATE = 0.2  # chance of a slip in a step of a backtracking solution
PLAN_OR_COLUMN = re.compile(r"^(<think>)?[-+*/\d,]+\.|[:,]\d+[-+*/]\d+([-+*/]\d+)?=")  # "47+38,-12.", "7+8=15"


def shows_columns(solution: str) -> bool:
    """Whether a solution has a plan or columns with their operands, and not only results as a terse one has."""
    return PLAN_OR_COLUMN.search(solution) is not None


def write_solution(problem: Problem, style: str, rng: random.Random) -> tuple[str, str]:
    """Write a worked solution: (the text that goes between <think> tags, the final answer).

    Every solution ends at the right answer; a slip is always noticed. Fractions are left unreduced half of the time,
    which is why the verifier has to know that 38/24 is 19/12. A single operation is never shortened to its results.
    """
    if problem.level == 1:
        return write_step(problem.steps[0], "columns" if style == "terse" else style, rng), problem.answer
    plan, *rests = remaining_operations(problem)
    work = "" if style == "terse" else f"{','.join(plan)}."
    for step, rest in zip(problem.steps, rests, strict=True):
        work += write_step(step, style, rng, "" if style == "terse" else "".join(f",{part}" for part in rest))
    if problem.family != "fraction":
        return work, problem.answer
    numerator, denominator = apply(*problem.steps[-1]), apply(*problem.steps[0])
    work += f"{numerator}/{denominator}"
    common = gcd(numerator, denominator)
    if 1 < common < 10 and rng.random() < 0.5:
        numerator, denominator = numerator // common, denominator // common
        work += f"={numerator}/{denominator}"
    return f"{work}.", str(numerator) if denominator == 1 else f"{numerator}/{denominator}"


def remaining_operations(problem: Problem) -> list[list[str]]:
    """The plan, then the operations that remain after each step. Each continues from the result before it.

    47+38-12: [47+38, -12], [-12], []. 7/4-7/6: [/4*6, -7*4, 7*6], [-7*4, 7*6, /24], [7*6, -28, /24], [-28, /24],
    [/24]: what later steps need is worked out first and then stands in the list, so that nothing stands far back.
    """
    operator, left, right = problem.steps[0]
    if problem.family != "fraction":
        parts = [f"{left}{operator}{right}", *(f"{operator}{right}" for operator, _, right in problem.steps[1:])]
        return [parts[done:] for done in range(len(parts) + 1)]
    denominator = f"/{left * right}"
    if problem.level == 2:
        product = "{1}*{2}".format(*problem.steps[1])
        return [[f"/{left}*{right}", product], [product, denominator], [denominator]]
    (_, c, b), (_, a, d), (operator, _, second), *times = problem.steps[1:]
    tail = [*(f"*{e}" for _, _, e in times), denominator]
    rests = [[f"{operator}{c}*{b}", f"{a}*{d}", *tail], [f"{a}*{d}", f"{operator}{second}", *tail],
             *([f"{operator}{second}", *tail][done:] for done in range(len(tail) + 1))]
    return [[f"/{left}*{right}", *rests[0][:-1]], *rests]


def write_step(step: Step, style: str, rng: random.Random, rest: str = "") -> str:
    """One step with its columns, its result and `rest`, the operations that remain."""
    operator, left, right = step
    result = apply(operator, left, right)
    if left < 10 and right < 10:
        return f"{left}{operator}{right}={result}{rest}."
    columns = COLUMNS[operator](left, right)
    if style == "terse":
        columns = [column.rpartition("=")[2] for column in columns]
    if style == "backtracking" and rng.random() < SLIP_RATE:
        columns = _with_slip(columns, rng)
    text = f"{left}{operator}{right}:{','.join(columns)};{result}"
    if style == "checking" and rng.random() < CHECK_RATE:
        undo = INVERSE[operator]
        text += f".check {result}{undo}{right}:{','.join(COLUMNS[undo](result, right))};{left} ok.{result}"
    return f"{text}{rest}."


def _with_slip(columns: list[str], rng: random.Random) -> list[str]:
    """Write one column wrongly, notice it, and write it again."""
    place = rng.randrange(len(columns))
    right = columns[place]
    wrong = right[:-1] + rng.choice([digit for digit in "0123456789" if digit != right[-1]])
    return [*columns[:place], f"{wrong} no {right}", *columns[place + 1 :]]


def _add(left: int, right: int) -> list[str]:
    """Ones first: 47+38 -> 7+8=15, 4+3+1=8."""
    if right > left:
        left, right = right, left
    a, b = str(left)[::-1], str(right)[::-1]
    carry, columns = 0, []
    for i, digit in enumerate(a):
        terms = [digit, *([b[i]] if i < len(b) else []), *(["1"] if carry else [])]
        total = sum(map(int, terms))
        columns.append("+".join(terms) + (f"={total}" if len(terms) > 1 else ""))
        carry = total // 10
    return columns


def _subtract(left: int, right: int) -> list[str]:
    """Ones first, a borrowed ten written into the column: 63-18 -> 13-8=5, 6-1-1=4."""
    a, b = str(left)[::-1], str(right)[::-1]
    borrow, columns = 0, []
    for i, digit in enumerate(a):
        taken = (int(b[i]) if i < len(b) else 0) + borrow
        top = int(digit) + (10 if int(digit) < taken else 0)
        terms = [str(top), *([b[i]] if i < len(b) else []), *(["1"] if borrow else [])]
        columns.append("-".join(terms) + (f"={top - taken}" if len(terms) > 1 else ""))
        borrow = 1 if top > 9 else 0
    return columns


def _multiply(left: int, right: int) -> list[str]:
    """Ones first, the carry added: 47*6 -> 7*6=42, 4*6+4=28. The longer factor is written on the left."""
    if right > 9:
        left, right = right, left
    carry, columns = 0, []
    for digit in str(left)[::-1]:
        total = int(digit) * right + carry
        columns.append(f"{digit}*{right}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return columns


def _divide(left: int, right: int) -> list[str]:
    """Highest place first, the remainder carried down: 87/3 -> 8/3=2r2, 27/3=9."""
    remainder, columns = 0, []
    for digit in str(left):
        part = remainder * 10 + int(digit)
        remainder = part % right
        columns.append(f"{part}/{right}={part // right}{f'r{remainder}' if remainder else ''}")
    return columns


COLUMNS = {"+": _add, "-": _subtract, "*": _multiply, "/": _divide}  # the columns of one operation, in writing order
