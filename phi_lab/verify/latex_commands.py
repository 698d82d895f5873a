"""The commands of the LaTeX parser: functions, roots, fractions, sums, matrices, letters with accents."""

import re
from collections.abc import Callable
from fractions import Fraction

from phi_lab.verify.tree import OPERATORS, Tree, Unread

MAX_DEPTH = 60  # brackets inside brackets
FUNCTIONS = set("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln lg log exp".split())
GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar".split()
)
ACCENTS = {"hat", "vec", "bar", "tilde", "overline", "mathbf", "mathcal", "mathbb", "dot", "widehat"}
PREFIXES = FUNCTIONS | GREEK | OPERATORS | ACCENTS | {"frac", "sqrt", "binom", "pi", "begin", "lvert"}
NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+", re.ASCII)
WORD = re.compile(r"[A-Za-z]+")
_SPACE = re.compile(r"\s*")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_ACCENTED = re.compile(r"\s*(?:\{\s*\\?([A-Za-z]{1,6})\s*\}|\\?([A-Za-z]))")
_INDEX = re.compile(r"\s*_\s*\{\s*([a-z])\s*=")
_ENVIRONMENT = re.compile(r"\{([pbB]?matrix|array)\}(?:\{[lcr|]+\})?")


class Reader:
    """A place in a text, and what the parser reads there (`latex`)."""

    expression: Callable[[], Tree]
    term: Callable[[], Tree]
    factor: Callable[[], Tree]
    primary: Callable[[], Tree]
    argument: Callable[[], Tree]
    exponent: Callable[[], Tree]
    group: Callable[[str, str], Tree]
    subscripted: Callable[[str], Tree]
    begins_factor: Callable[[str], bool]
    check_neighbours: Callable[[int], None]

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth, self.bars = text, 0, 0, 0

    def peek(self) -> str:
        """The next mark: a command with its backslash, or one character; "" at the end."""
        if space := _SPACE.match(self.text, self.at):
            self.at = space.end()
        command = _COMMAND.match(self.text, self.at)
        return command[0] if command else self.text[self.at : self.at + 1]

    def take(self, mark: str) -> None:
        if self.peek() != mark:
            raise Unread(f"{mark} is missing")
        self.at += len(mark)

    def digits(self) -> Fraction:
        found = self.match(NUMBER)
        if not found:
            raise Unread("digits are missing")
        return fraction(found[0])

    def match(self, pattern: re.Pattern) -> re.Match | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found


class Commands(Reader):
    """What stands behind a backslash; `expression`, `factor` and the rest are the parser's."""

    def command(self, name: str, moved: bool = False) -> Tree:
        if not moved:
            self.at += len(name) + 1
        if name in FUNCTIONS:
            return self.function(name)
        if name == "frac":
            return ("div", self.argument(), self.argument())
        if name == "binom":
            return ("fun", "binom", [self.argument(), self.argument()])
        if name == "sqrt":
            return self.root()
        if name == "pi":
            return ("const", "pi")
        if name in GREEK:
            return self.subscripted("\\" + name)
        if name in ACCENTS:
            return self.accented(name)
        if name in ("gcd", "lcm", "max", "min"):
            return self.listed(name)
        if name in ("lfloor", "lceil"):
            inner = self.expression()
            self.take("\\rfloor" if name == "lfloor" else "\\rceil")
            return ("fun", name, [inner])
        if name in ("sum", "prod"):
            return self.big(name)
        if name == "lvert":
            self.at -= len("\\lvert")
            return self.bars_around("\\lvert", "\\rvert")
        if name == "begin":
            return self.matrix()
        raise Unread(f"\\{name}")

    def accented(self, name: str) -> Tree:
        found = self.match(_ACCENTED)
        if not found:
            raise Unread(f"\\{name}")
        return ("sym", f"{'bar' if name == 'overline' else name} {found[1] or found[2]}")

    def root(self) -> Tree:
        index: Tree = ("num", Fraction(2))
        if self.peek() == "[":
            index = self.group("[", "]")
        if self.peek() == "(":
            return ("fun", "root", [self.group("(", ")"), index])
        if NUMBER.match(self.text, self.at):  # √50 and \sqrt 50 mean the root of fifty; \sqrt3 alike
            return ("fun", "root", [("num", self.digits()), index])
        return ("fun", "root", [self.argument(), index])

    def function(self, name: str) -> Tree:
        power = base = None
        while (mark := self.peek()) in ("^", "_") and mark:
            self.at += 1
            if mark == "^":
                power = self.exponent()
            elif self.peek().isdigit():
                base = ("num", self.digits())
            else:
                base = self.argument()
        if base is not None and name != "log":
            raise Unread(f"\\{name} with a base")
        inner = self.function_argument()
        if power == ("neg", ("num", Fraction(1))):
            if name not in ("sin", "cos", "tan"):
                raise Unread(f"the inverse of \\{name}")
            return ("fun", "arc" + name, [inner])
        value = ("fun", name, [inner] if base is None else [inner, base])
        return value if power is None else ("pow", value, power)

    def function_argument(self) -> Tree:
        """Of \\sin 2x and \\sin(2x): a bracket alone, or the factors up to the next sign, bracket or function."""
        if self.peek() in ("(", "{", "[", "|"):
            return self.primary()
        if self.peek() in ("+", "-"):
            raise Unread("a function of a sign")
        factors = [self.factor()]
        while True:
            mark, start = self.peek(), self.at
            if mark == "/" and all(f[0] in ("num", "const") for f in factors):
                self.at += 1
                return ("div", product(None, factors), self.factor())
            if mark in ("(", "[", "{", "|") or mark[1:] in FUNCTIONS | {"frac"} or not self.begins_factor(mark):
                return product(None, factors)
            if (word := WORD.match(self.text, start)) and word[0] in FUNCTIONS:
                return product(None, factors)
            self.check_neighbours(start)
            factors.append(self.factor())

    def listed(self, name: str) -> Tree:
        opened = self.peek()
        if opened not in ("(", "{"):
            raise Unread(name)
        self.at += 1
        items = [self.expression()]
        while self.peek() == ",":
            self.at += 1
            items.append(self.expression())
        self.take(")" if opened == "(" else "}")
        return ("fun", name, items)

    def big(self, name: str) -> Tree:
        found = self.match(_INDEX)
        if not found:
            raise Unread(f"\\{name}")
        low = self.expression()
        self.take("}")
        self.take("^")
        high = self.exponent()
        return ("big", name, found[1], low, high, self.term())

    def matrix(self) -> Tree:
        found = self.match(_ENVIRONMENT)
        if not found:
            raise Unread("\\begin")
        rows = [[self.expression()]]
        while True:
            mark = self.peek()
            if mark == "&":
                self.at += 1
                rows[-1].append(self.expression())
            elif self.text.startswith("\\\\", self.at):
                self.at += 2
                if self.peek() != "\\end":
                    rows.append([self.expression()])
            else:
                break
        self.take("\\end")
        if not self.match(re.compile(re.escape("{" + found[1] + "}"))) or len({len(row) for row in rows}) > 1:
            raise Unread("\\end")
        return ("matrix", rows)

    def bars_around(self, opened: str, closed: str) -> Tree:
        self.take(opened)
        self.bars += 1
        inner = self.expression()
        self.bars -= 1
        self.take(closed)
        return ("fun", "abs", [inner])


def letter(name: str) -> Tree:
    """A letter: a symbol, or one of the constants e and i."""
    return ("const", name) if name in ("e", "i") else ("sym", name)


def fraction(digits: str) -> Fraction:
    """The value of digits with thousands commas and a point."""
    whole, _, part = digits.replace(",", "").partition(".")
    return Fraction(int((whole or "0") + part), 10 ** len(part))


def product(tree: Tree | None, factors: list[Tree]) -> Tree:
    """The product of factors, behind what was read before them."""
    parts = ([] if tree is None else [tree]) + factors
    return parts[0] if len(parts) == 1 else ("mul", parts)
