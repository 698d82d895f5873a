r"""The small world: arithmetic in several steps, with the columns written out.

A model of under a million parameters cannot work out (84-57+36)/3 in its head, but it can when it writes one column
after the other. Long chains of thought are therefore *necessary* here, as they are for a 3.8 B model on
competition mathematics. Every problem is a chain of one to four operations (its level) in one of several wordings, or
a sum, difference or product of fractions. A worked solution is text such as

    47+38,-12.47+38:7+8=15,4+3+1=8;85,-12.85-12:5-2=3,8-1=7;73.

First the plan; then for every step its columns, its result and what is left to do. There are three styles: `terse` (no
plan, and of the columns only the results: 47+38:15,8;85.), `checking` (steps undone by their inverse) and
`backtracking` (slips that are noticed and repaired). So right answers to one prompt really differ in length, and the
short way is the risky one. That what is needed next stands close by is what lets a tiny model learn this (docs/log.md).
"""

import ast
import random
import re
from fractions import Fraction
from math import gcd
from typing import NamedTuple

from phi_lab.problems.problem import Problem

STYLES = ("terse", "checking", "backtracking")
CHECKED = 0.4  # share of steps that a checking solution undoes
SLIP = 0.2  # chance of a slip in a step of a backtracking solution
NAMES = ("Ann", "Bob", "Eva", "Ian", "Joy", "Leo", "Mia", "Tom")
THINGS = ("apples", "beads", "books", "cards", "coins", "nuts", "pens", "shells")
FRACTION_WORDINGS = ("What is {} as a fraction?", "Compute {} as a fraction.", "What fraction is {}?")
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
FRACTION_SHARE = 0.12
MORE_FRACTIONS = 0.15  # more of them in what is learned from, since they are learned last
EASY = (42, 42, 8, 8)  # how often a single operation is +, -, *, /
LARGEST = 99  # of all numbers but a fraction's denominator: with three digits learning took three times as long
PLAN_OR_COLUMN = re.compile(r"^(<think>)?[-+*/\d,]+\.|[:,]\d+[-+*/]\d+([-+*/]\d+)?=")  # "47+38,-12.", "7+8=15"
SMALL = {1: 0.8, 2: 0.3, 3: 0.15, 4: 0.15}  # share of one-digit right operands, by level

# ------------------------------------------------------------------ problems


def sample(rng: random.Random, level: int) -> Problem:
    """Draw one problem with `level` operations (1 to 4)."""
    if level > 1 and rng.random() < FRACTION_SHARE:
        return _fraction(rng, level)
    start, operations = _chain(rng, level, SMALL[level])
    return _dress(rng, start, operations)


def sample_split(rng: random.Random, level: int, split: str, fractions: float = 0.0) -> Problem:
    """Draw until the problem falls into `split` (see `Problem.split`). Of problems with two operations and more a share
    of `fractions` is drawn again until it is a fraction, beside those that are one anyway.
    """

    def draw() -> Problem:
        while True:
            problem = sample(rng, level)
            if problem.split == split:
                return problem

    problem = draw()
    more = fractions > 0 and level > 1 and rng.random() < fractions
    while more and problem.family != "fraction":
        problem = draw()
    return problem


def apply(operator: str, left: int, right: int) -> int:
    """The integer result of one step; division is exact by construction."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left // right


def _chain(rng: random.Random, level: int, small: float) -> tuple[int, list[tuple[str, int]]]:
    """A start value and `level` operations; no value leaves 1 to LARGEST."""
    while True:
        start = value = rng.randint(11, LARGEST)
        operations = []
        for _ in range(level):
            choice = rng.choices("+-*/", EASY if level == 1 else (35, 35, 16, 14))[0]
            least, most = (2, 9) if rng.random() < small else (11, LARGEST)
            room = {"+": LARGEST - value, "-": value - 1}.get(choice, 0)
            if room >= least:
                right = rng.randint(least, min(most, room))
            elif choice == "*" and 2 * value <= LARGEST:
                right = rng.randint(2, min(9, LARGEST // value))
            else:
                divisors = [d for d in range(2, 10) if value % d == 0 and value // d > 1]
                if choice != "/" or not divisors:
                    break
                right = rng.choice(divisors)
            operations.append((choice, right))
            value = apply(choice, value, right)
        if len(operations) == level:
            return start, operations


def _key(start: int, operations: list[tuple[str, int]]) -> str:
    """Canonical operands and operators: the first step's order does not matter where it commutes."""
    (first, right), rest = operations[0], operations[1:]
    left, right = sorted((start, right)) if first in "+*" else (start, right)
    return f"{left}{first}{right}" + "".join(f"{op}{number}" for op, number in rest)


def _steps(start: int, operations: list[tuple[str, int]]) -> tuple[tuple[str, int, int], ...]:
    value, steps = start, []
    for operator, right in operations:
        steps.append((operator, value, right))
        value = apply(operator, value, right)
    return tuple(steps)


def _dress(rng: random.Random, start: int, operations: list[tuple[str, int]]) -> Problem:
    """Put a chain into words. The wording never enters the key."""
    family = rng.choices(("expression", "word", "let", "equation"), (35, 25, 20, 20))[0]
    steps = _steps(start, operations)
    answer = apply(*steps[-1])
    prompt = {"expression": _expression, "word": _word, "let": _let, "equation": _equation}[family](
        rng, start, operations
    )
    return Problem("arithmetic", family, len(operations), _key(start, operations), prompt, str(answer), steps)


def _infix(text: str, operations: list[tuple[str, int]]) -> str:
    """Write operations after `text`, with parentheses only where they are needed."""
    loose = False
    for operator, right in operations:
        if operator in "*/" and loose:
            text = f"({text})"
        text = f"{text}{operator}{right}"
        loose = operator in "+-"
    return text


def _expression(rng: random.Random, start: int, operations: list[tuple[str, int]]) -> str:
    return f"Compute {_infix(str(start), operations)}."


def _let(rng: random.Random, start: int, operations: list[tuple[str, int]]) -> str:
    """Substitution: intermediate values get letters."""
    before, parts = str(start), []
    for letter, (operator, right) in zip("abc", operations[:-1], strict=False):
        parts.append(f"Let {letter} = {before}{operator}{right}.")
        before = letter
    operator, right = operations[-1]
    return " ".join([*parts, f"Find {before}{operator}{right}."])


def _word(rng: random.Random, start: int, operations: list[tuple[str, int]]) -> str:
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    told = {
        "+": ("gets {} more", "finds {} more", "buys {} more"),
        "-": ("gives away {}", "loses {}", "sells {}"),
        "*": ("makes it {} times as many", "ends up with {} times as many"),
        "/": ("shares them equally among {} bags and keeps one bag", "keeps only one part of {} equal parts"),
    }
    sentences = [f"Then {name} {rng.choice(told[op]).format(right)}." for op, right in operations]
    return " ".join([f"{name} has {start} {things}.", *sentences, f"How many {things} does {name} have now?"])


def _equation(rng: random.Random, start: int, operations: list[tuple[str, int]]) -> str:
    """The equation whose solution undoes itself with exactly these operations, from its right-hand side `start`."""
    undone = [(INVERSE[operator], right) for operator, right in reversed(operations)]
    return f"Solve {_infix('x', undone)} = {start} for x."


def _fraction(rng: random.Random, level: int) -> Problem:
    """Two fractions: a product (level 2), a sum or difference (level 3), or that times a whole number (level 4)."""
    while True:
        a, c = rng.randint(1, 9), rng.randint(1, 9)
        b, d = rng.randint(2, 9), rng.randint(2, 9)
        operator, e = "*" if level == 2 else rng.choice("+-"), rng.randint(2, 9) if level == 4 else 1
        top = a * c if level == 2 else apply(operator, a * d, c * b)
        if 0 < top * e <= LARGEST:
            break
    steps = _fraction_steps(a, b, operator, c, d, e)
    text = f"{a}/{b}{operator}{c}/{d}"
    pair = sorted(((a, b), (c, d))) if operator in "+*" else [(a, b), (c, d)]
    key = f"fraction:{pair[0]}{operator}{pair[1]}"
    if level == 4:
        text, key = f"({text})*{e}", f"{key}*{e}"
    prompt = rng.choice(FRACTION_WORDINGS).format(text)
    return Problem("arithmetic", "fraction", level, key, prompt, str(Fraction(top * e, b * d)), tuple(steps))


def _fraction_steps(a: int, b: int, operator: str, c: int, d: int, e: int = 1) -> list[tuple[str, int, int]]:
    """What (a/b operator c/d)*e takes in whole numbers: the denominator first, then what stands above it."""
    steps = [("*", b, d), ("*", a, c)]
    if operator != "*":
        steps[1:] = [("*", c, b), ("*", a, d), (operator, a * d, c * b)]
    return steps if e == 1 else [*steps, ("*", apply(*steps[-1]), e)]


# ------------------------------------------------------------------ questions that somebody types

QUESTION = re.compile(
    r"(?:compute|find|what is|what fraction is)?([-+*/()0-9 ]{1,100})(?:as a fraction)?[ .?=!]*", re.IGNORECASE
)
TWO_FRACTIONS = re.compile(r"(\()?(\d)/(\d)([-+*])(\d)/(\d)(?(1)\)\*(\d))")  # 3/4+5/6 or (3/4+5/6)*2
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class Computed(NamedTuple):
    """`answer`: what a question comes to; `outside`: the first number on the way there that the small world does not
    have (above LARGEST, below 1, or no whole number), or None.
    """

    answer: Fraction
    outside: Fraction | None


def computed(question: str) -> Computed | None:
    """Work out an expression that somebody typed, such as "Compute (84-57+36)/3."; None where there is none to read."""
    if not (match := QUESTION.fullmatch(question.strip())):
        return None
    text, numbers = match[1].strip(), []
    try:
        answer = _value(ast.parse(text, mode="eval").body, numbers)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None
    if two := TWO_FRACTIONS.fullmatch(text.replace(" ", "")):  # the world does these in whole numbers
        _, a, b, operator, c, d, e = two.groups(default="1")
        steps = _fraction_steps(int(a), int(b), operator, int(c), int(d), int(e))
        numbers = [number for step in steps for number in (*step[1:], apply(*step))]
    outside = (number for number in numbers if number != int(number) or not 1 <= number <= LARGEST)
    return Computed(answer, next(outside, None))


def _value(node: ast.expr, numbers: list[Fraction]) -> Fraction:
    """The value of a parsed expression; appends every operand and every result to `config`.

    Raises ValueError for anything but whole numbers, + - * / and parentheses, ZeroDivisionError where it divides by 0.
    """
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left, numbers), _value(node.right, numbers)
        value = left / right if isinstance(node.op, ast.Div) else apply(OPERATORS[type(node.op)], left, right)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        value = Fraction(node.value)
    else:
        raise ValueError("not whole numbers, + - * / and parentheses")
    numbers.append(value)
    return value


# ------------------------------------------------------------------ worked solutions


def written_out(solution: str) -> bool:
    """Whether a solution has a plan or columns with their operands, and not only results as a terse one has."""
    return PLAN_OR_COLUMN.search(solution) is not None


def solution(problem: Problem, style: str, rng: random.Random) -> tuple[str, str]:
    """Write a worked solution: (the text that goes between <think> tags, the final answer).

    Every solution ends at the right answer; a slip is always noticed. Fractions are left unreduced half of the time,
    which is why the verifier has to know that 38/24 is 19/12. A single operation is never shortened to its results.
    """
    if problem.level == 1:
        style = "columns" if style == "terse" else style
        return _step(problem.steps[0], style, rng), problem.answer
    plan, *rests = _left_to_do(problem)
    work = "" if style == "terse" else f"{','.join(plan)}."
    for step, rest in zip(problem.steps, rests, strict=True):
        work += _step(step, style, rng, "" if style == "terse" else "".join(f",{part}" for part in rest))
    if problem.family != "fraction":
        return work, problem.answer
    top, bottom = apply(*problem.steps[-1]), apply(*problem.steps[0])
    work += f"{top}/{bottom}"
    common = gcd(top, bottom)
    if 1 < common < 10 and rng.random() < 0.5:
        top, bottom = top // common, bottom // common
        work += f"={top}/{bottom}"
    return f"{work}.", str(top) if bottom == 1 else f"{top}/{bottom}"


def _left_to_do(problem: Problem) -> list[list[str]]:
    """The plan, and after each step what is left to do. Each part goes on from the result before it.

    47+38-12: [47+38, -12], [-12], []. 7/4-7/6: [/4*6, -7*4, 7*6], [-7*4, 7*6, /24], [7*6, -28, /24], [-28, /24],
    [/24]: what later steps need is worked out first and then stands in the list, so that nothing stands far back.
    """
    operator, left, right = problem.steps[0]
    if problem.family != "fraction":
        parts = [f"{left}{operator}{right}", *(f"{operator}{right}" for operator, _, right in problem.steps[1:])]
        return [parts[place:] for place in range(len(parts) + 1)]
    below = f"/{left * right}"
    if problem.level == 2:
        product = "{1}*{2}".format(*problem.steps[1])
        return [[f"/{left}*{right}", product], [product, below], [below]]
    (_, c, b), (_, a, d), (operator, _, second), *times = problem.steps[1:]
    tail = [*(f"*{e}" for _, _, e in times), below]
    rests = [[f"{operator}{c}*{b}", f"{a}*{d}", *tail], [f"{a}*{d}", f"{operator}{second}", *tail],
             *([f"{operator}{second}", *tail][place:] for place in range(len(tail) + 1))]
    return [[f"/{left}*{right}", *rests[0][:-1]], *rests]


def _step(step: tuple[str, int, int], style: str, rng: random.Random, rest: str = "") -> str:
    """One step with its columns; `rest`: what is left to do, written after the result."""
    operator, left, right = step
    result = apply(operator, left, right)
    if left < 10 and right < 10:
        return f"{left}{operator}{right}={result}{rest}."
    columns = _columns(operator, left, right)
    if style == "terse":
        columns = [column.rpartition("=")[2] for column in columns]
    if style == "backtracking" and rng.random() < SLIP:
        columns = _with_slip(columns, rng)
    text = f"{left}{operator}{right}:{','.join(columns)};{result}"
    if style == "checking" and rng.random() < CHECKED:
        undo = INVERSE[operator]
        text += f".check {result}{undo}{right}:{','.join(_columns(undo, result, right))};{left} ok.{result}"
    return f"{text}{rest}."


def _with_slip(columns: list[str], rng: random.Random) -> list[str]:
    """Write one column wrongly, notice it, and write it again."""
    place = rng.randrange(len(columns))
    right = columns[place]
    wrong = right[:-1] + rng.choice([digit for digit in "0123456789" if digit != right[-1]])
    return [*columns[:place], f"{wrong} no {right}", *columns[place + 1 :]]


def _columns(operator: str, left: int, right: int) -> list[str]:
    if operator == "+":
        return _add(left, right)
    if operator == "-":
        return _subtract(left, right)
    return _multiply(left, right) if operator == "*" else _divide(left, right)


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
    rest, columns = 0, []
    for digit in str(left):
        part = rest * 10 + int(digit)
        rest = part % right
        columns.append(f"{part}/{right}={part // right}{f'r{rest}' if rest else ''}")
    return columns


def facts(rng: random.Random, split: str) -> list[tuple[str, str]]:
    """Twelve bare results in a row, as (left side, result) pairs: ("47+8=", "55."). Only results can be learned."""
    pairs = []
    for _ in range(12):
        operator, left, right = sample_split(rng, 1, split).steps[0]
        pairs.append((f"{left}{operator}{right}=", f"{apply(operator, left, right)}."))
    return pairs


def tables(rng: random.Random) -> list[tuple[str, str]]:
    """Sixteen products and quotients in a row, as columns need them: ("4*6+2=", "26."), ("27/6=", "4r3.").

    No problem hides in them: those start above 10 and divide without a rest.
    """
    pairs = []
    for _ in range(16):
        left, right = rng.randint(1, 9), rng.randint(2, 9)
        if rng.random() < 0.6:
            carry = rng.randrange(right)
            pairs.append((f"{left}*{right}{f'+{carry}' if carry else ''}=", f"{left * right + carry}."))
        else:
            rest = rng.randrange(1, right)
            pairs.append((f"{left * right + rest}/{right}=", f"{left}r{rest}."))
    return pairs


def readings(rng: random.Random, split: str) -> list[tuple[str, str]]:
    """Six questions in a row, each followed by its operation and result: ("Solve x+5 = 30 for x. ", "30-5=25.")."""
    pairs = []
    for _ in range(6):
        problem = sample_split(rng, 1, split)
        operator, left, right = problem.steps[0]
        pairs.append((f"{problem.prompt} ", f"{left}{operator}{right}={problem.answer}."))
    return pairs


def plans(rng: random.Random, split: str) -> list[tuple[str, str]]:
    """Three longer questions in a row, each followed by its operations without results: (question, "47+38,-12.")."""
    pairs = []
    while len(pairs) < 3:
        problem = sample_split(rng, rng.randint(2, 4), split)
        if problem.family not in ("equation", "fraction") and rng.random() < 0.5:
            continue  # what has to be turned around is read more often
        pairs.append((f"{problem.prompt} ", f"{','.join(_left_to_do(problem)[0])}."))
    return pairs


def scratch_work(rng: random.Random, split: str) -> str:
    """Two to four steps with their columns and no question around them, as any base model meets them."""
    problem = sample_split(rng, rng.randint(2, 4), split)
    return "".join(_step(step, "columns", rng) for step in problem.steps)
