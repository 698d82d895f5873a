"""The value of an expression, and whether two expressions have the same.

Two expressions are the same if their exact values are, or if 200 of 400 digits are at several points. A sum in which a
term disappears has no value (`arithmetic`), so that `1-e^{-500}` is not taken for 1.
"""

from fractions import Fraction

from mpmath import mp, mpc, mpf

from phi_lab.verify import functions
from phi_lab.verify.arithmetic import Value, add, as_float, divide, multiply, power, times
from phi_lab.verify.tree import Tree, Unread, names

DIGITS = 400  # of the computation
SAME = mpf(10) ** -200  # relative difference up to which two values are the same
MAX_TERMS = 2000  # of a sum that is worked out
STEPS = 200_000  # operations for one value
POINTS = (Fraction(137, 100), Fraction(261, 100), Fraction(83, 100), Fraction(-129, 100))


def evaluate(tree: Tree, at: dict[str, Value] | None = None) -> Value:
    """The value of a tree with its symbols `at` some point. Raises Unread, or ZeroDivisionError."""
    return _Evaluation(at or {}).value(tree)


def points(symbols: set[str]) -> list[dict[str, Value]]:
    """Points at which expressions in these symbols are compared; the last has negative coordinates."""
    order = sorted(symbols)
    return [{name: base + Fraction(i, 7) for i, name in enumerate(order)} for base in POINTS]


def same(a: Tree, b: Tree) -> bool | None:
    """Have two expressions the same value, at every point? None where they have none."""
    with mp.workdps(DIGITS):
        symbols = names(a) | names(b)
        if not symbols:
            return close(evaluate(a), evaluate(b))
        seen = 0
        for point in points(symbols):
            try:
                p, q = evaluate(a, point), evaluate(b, point)
            except ZeroDivisionError:
                continue
            if point[min(symbols)] < 0 and any(isinstance(v, mpc) for v in (p, q)):
                continue  # roots of negative numbers have several conventions
            if not close(p, q):
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
            try:
                p, q = (evaluate(tree, point) for tree in trees)
                here = divide(p, q)
            except ZeroDivisionError:
                return None
            if isinstance(p, list) or isinstance(q, list) or p == 0:
                return None
            if point[min(symbols)] < 0 and any(isinstance(v, mpc) for v in (p, q)):
                continue
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
    def __init__(self, at: dict[str, Value]) -> None:
        self.at, self.steps = at, 0

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
            return power(self.value(tree[1]), self.value(tree[2]))
        if kind == "matrix":
            return [[self.value(entry) for entry in row] for row in tree[1]]
        if kind == "big":
            return self.big(*tree[1:])
        return functions.call(tree[1], [self.value(part) for part in tree[2]])

    def big(self, name: str, index: str, low: Tree, high: Tree, body: Tree) -> Value:
        start, end = self.value(low), self.value(high)
        if not all(isinstance(v, Fraction) and v.denominator == 1 for v in (start, end)) or end - start > MAX_TERMS:
            raise Unread("a sum without end")
        terms = []
        for k in range(int(start), int(end) + 1):
            terms.append(_Evaluation({**self.at, index: Fraction(k)}).value(body))
        return add([Fraction(0), *terms]) if name == "sum" else multiply([Fraction(1), *terms])
