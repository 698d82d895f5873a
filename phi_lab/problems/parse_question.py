"""The exact answer to a question that a user typed, such as "Compute (84-57+36)/3.", for `phi-lab chat`."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from phi_lab.problems.arithmetic import MAX_NUMBER, apply, fraction_steps

QUESTION = re.compile(
    r"(?:compute|find|what is|what fraction is)?([-+*/()0-9 ]{1,100})(?:as a fraction)?[ .?=!]*", re.IGNORECASE
)
TWO_FRACTIONS = re.compile(r"(\()?(\d)/(\d)([-+*])(\d)/(\d)(?(1)\)\*(\d))")  # 3/4+5/6 or (3/4+5/6)*2
OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}


class Evaluation(NamedTuple):
    """`answer`: the exact value. `outside`: the first operand or intermediate result that the small world does not have
    (above MAX_NUMBER, below 1, or no whole number), or None.
    """

    answer: Fraction
    outside: Fraction | None


def evaluate_question(question: str) -> Evaluation | None:
    """Evaluate the expression in a question; None where there is none that can be read."""
    if not (match := QUESTION.fullmatch(question.strip())):
        return None
    text, values = match[1].strip(), list[Fraction]()
    try:
        answer = _evaluate(ast.parse(text, mode="eval").body, values)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None
    if fractions := TWO_FRACTIONS.fullmatch(text.replace(" ", "")):  # the world does these in whole numbers
        _, a, b, sign, c, d, e = fractions.groups(default="1")
        steps = fraction_steps(int(a), int(b), sign, int(c), int(d), int(e))
        values = [Fraction(number) for step in steps for number in (*step[1:], apply(*step))]
    outside = (value for value in values if value.denominator != 1 or not 1 <= value <= MAX_NUMBER)
    return Evaluation(answer, next(outside, None))


def _evaluate(node: ast.expr, values: list[Fraction]) -> Fraction:
    """The value of a parsed expression; appends every operand and every result to `values`.

    Raises ValueError for anything but whole numbers, + - * / and parentheses, ZeroDivisionError where it divides by 0.
    """
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _evaluate(node.left, values), _evaluate(node.right, values)
        value = OPERATIONS[type(node.op)](left, right)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        value = Fraction(node.value)
    else:
        raise ValueError("not whole numbers, + - * / and parentheses")
    values.append(value)
    return value
