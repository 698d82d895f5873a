"""The value of an expression, and whether two expressions have the same.

Two expressions are the same if their exact values are, or if 200 of 400 digits are at several points. A sum in which a
term disappears has no value (`arithmetic`), so that `1-e^{-500}` is not taken for 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from mpmath import mp, mpc, mpf

from phi_lab.verify import functions
from phi_lab.verify.arithmetic import Value, add, as_float, divide, multiply, power, times
from phi_lab.verify.tree import Tree, Unread, names

DIGITS = 400  # of the computation
SAME = mpf(10) ** -200  # relative difference up to which two values are the same
MAX_TERMS = 2000  # of a sum that is worked out
STEPS = 200_000  # operations for one value
FAR = 10  # beyond it, what is too large to work out is passed over


class Point(NamedTuple):
    """Where expressions are compared: a value for every symbol; `negative`: is one below zero, `far`: beyond FAR?"""

    at: dict[str, Fraction]
    negative: bool
    far: bool


def evaluate(tree: Tree, at: Mapping[str, Value] | None = None) -> Value:
    """The value of a tree with its symbols `at` some point. Raises Unread, or ZeroDivisionError."""
    return _Evaluation(at or {}).value(tree)


def points(symbols: set[str]) -> list[Point]:
    """Points at which expressions in these symbols are compared. Of any two symbols each is the larger somewhere, and
    of the first eight each is negative beside a positive other; some points are far from zero. No differences repeat,
    so that `b-a` is neither `|a-b|` nor a number."""
    order, made = sorted(symbols), []

    def add(base: str, steps: Iterable[int], signs: Iterable[int] | None = None) -> None:
        sizes = [Fraction(base) + Fraction(step, 7) + Fraction((7 * i * i + 3 * i) % 11, 97) + Fraction(i, 1009)
                 for i, step in enumerate(steps)]  # fmt: skip
        values = [size * sign for size, sign in zip(sizes, signs or [1] * len(sizes), strict=True)]
        made.append(Point(dict(zip(order, values, strict=True)), min(values) < 0, max(sizes) > FAR))

    count = range(len(order))
    mixed = [(5 * i + 2) % 7 for i in count]
    add("1.37", count)
    add("0.83", reversed(count))
    add("2.61", mixed)
    add("1.29", mixed, [-1] * len(order))
    for bit in range(min(3, (len(order) - 1).bit_length())):
        signs = [1 if i >> bit & 1 else -1 for i in count]
        add("1.71", count, signs)
        add("1.53", mixed, [-sign for sign in signs])
    for base in ("13.7", "1231.3"):
        add(base, mixed)
        add(base, reversed(count), [-1] * len(order))
    return made


def _at(point: Point, trees: Sequence[Tree]) -> list[Value] | None:
    """The values of trees at a point; None where one has none, or where it hangs on a convention: roots, logarithms and
    powers of negative numbers have several."""
    values = []
    for tree in trees:
        evaluation = _Evaluation(point.at)
        try:
            values.append(evaluation.value(tree))
        except ZeroDivisionError:
            return None
        except Unread:
            if point.far:
                return None
            raise
        if point.negative and evaluation.left_the_reals:
            return None
    return values


def same(a: Tree, b: Tree) -> bool | None:
    """Have two expressions the same value, at every point? None where they have none."""
    with mp.workdps(DIGITS):
        symbols = names(a) | names(b)
        if not symbols:
            return close(evaluate(a), evaluate(b))
        seen = 0
        for point in points(symbols):
            values = _at(point, (a, b))
            if values is None:
                continue
            if not close(*values):
                return False
            seen += 1
        return True if seen >= 2 else None


def proportional(first: tuple[Tree, ...], second: tuple[Tree, ...], sign: int = 0) -> bool | None:
    """Is left - right of one relation a constant multiple of that of the other, of this sign (0: either)?"""
    with mp.workdps(DIGITS):
        trees = [("add", [left, ("neg", right)]) for left, right in (first, second)]
        symbols = names(trees[0]) | names(trees[1])
        if not symbols or names(trees[0]) != names(trees[1]):
            return False
        ratio, seen = None, 0
        for point in points(symbols):
            values = _at(point, trees)
            if values is None:
                continue
            p, q = values
            if isinstance(p, list) or isinstance(q, list) or p == 0 or q == 0:
                return None
            here = divide(p, q)
            ratio = here if ratio is None else ratio
            if not close(ratio, here) or (sign and (isinstance(here, mpc) or here * sign <= 0)):
                return False
            seen += 1
        return True if seen >= 2 else None


def close(p: Value, q: Value) -> bool:
    """Are two values the same: exactly, or in 200 digits?"""
    if isinstance(p, list) or isinstance(q, list):
        if not (isinstance(p, list) and isinstance(q, list)) or [len(r) for r in p] != [len(r) for r in q]:
            return False
        return all(close(x, y) for r, s in zip(p, q, strict=True) for x, y in zip(r, s, strict=True))
    if isinstance(p, Fraction) and isinstance(q, Fraction):
        return p == q
    if p == 0 or q == 0:
        return p == q
    p, q = as_float(p), as_float(q)
    return bool(abs(p - q) <= max(abs(p), abs(q)) * SAME)


def rounds(digits: str, tree: Tree) -> bool:
    """Is a decimal of six places or more the correct rounding of an irrational constant?"""
    with mp.workdps(DIGITS):
        value = evaluate(tree)
        if isinstance(value, (Fraction, list, mpc)):
            return False
        near = Fraction(str(mp.nstr(value, 40, strip_zeros=False, min_fixed=-mp.inf, max_fixed=mp.inf)))
        ratio = near.limit_denominator(10**6)
        if abs(near - ratio) < Fraction(1, 10**25):
            return False  # rational after all
        return abs(near - Fraction(digits)) * 2 * 10 ** len(digits.partition(".")[2]) <= 1


class _Evaluation:
    """Works one tree out; `left_the_reals`: was a root, a power or a function on the way complex?"""

    def __init__(self, at: Mapping[str, Value]) -> None:
        self.at, self.steps = at, 0
        self.left_the_reals = False

    def value(self, tree: Tree) -> Value:
        self.steps += 1
        if self.steps > STEPS:
            raise Unread("too much to work out")
        kind = tree[0]
        if kind == "num":
            return tree[1]
        if kind == "sym":
            return self.at[tree[1]]
        if kind == "const":
            return {"pi": +mp.pi, "e": +mp.e, "i": mpc(0, 1)}[tree[1]]
        if kind == "neg":
            return times(Fraction(-1), self.value(tree[1]))
        if kind == "add":
            return add([self.value(term) for term in tree[1]])
        if kind == "mul":
            return multiply([self.value(factor) for factor in tree[1]])
        if kind == "div":
            return divide(self.value(tree[1]), self.value(tree[2]))
        if kind == "pow":
            exponent = self.value(tree[2])
            value = power(self.value(tree[1]), exponent)
            return value if isinstance(exponent, Fraction) and exponent.denominator == 1 else self.noted(value)
        if kind == "matrix":
            return [[self.value(entry) for entry in row] for row in tree[1]]
        if kind == "big":
            return self.big(*tree[1:])
        return self.noted(functions.call(tree[1], [self.value(part) for part in tree[2]]))

    def noted(self, value: Value) -> Value:
        self.left_the_reals = self.left_the_reals or isinstance(value, mpc)
        return value

    def big(self, name: str, index: str, low: Tree, high: Tree, body: Tree) -> Value:
        start, end = self.value(low), self.value(high)
        if not all(isinstance(v, Fraction) and v.denominator == 1 for v in (start, end)) or end - start > MAX_TERMS:
            raise Unread("a sum without end")
        terms = []
        for k in range(int(start), int(end) + 1):
            inner = _Evaluation({**self.at, index: Fraction(k)})
            terms.append(inner.value(body))
            self.left_the_reals = self.left_the_reals or inner.left_the_reals
        return add([Fraction(0), *terms]) if name == "sum" else multiply([Fraction(1), *terms])
