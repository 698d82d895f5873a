"""A parser for the mathematics that answers are made of: LaTeX and plain text in, a small tree out (`tree`).

The parser is closed: what it does not know raises `Unread`, and an answer that was not read is not right. (The LaTeX
parsers of computer algebra systems take unknown words as products of letters, so that `4 times nine` has a value.)
It works from left to right with one mark of look-ahead, so its time is linear in the length of the text, and nothing
is ever handed to `eval`.
"""

import re
from fractions import Fraction

from phi_lab.verify.latex_commands import (
    FUNCTIONS,
    MAX_DEPTH,
    NUMBER,
    PREFIXES,
    WORD,
    Commands,
    fraction,
    letter,
    product,
)
from phi_lab.verify.tree import Tree, Unread

_SUBSCRIPT = re.compile(r"_(?:\{([\w+\-, ]{1,20})\}|(\w))")
_DERIVATIVE = re.compile(r"\\frac\s*\{\s*(?:d|\\partial)\b[^{}]*\}\s*\{\s*(?:d|\\partial)|\bd\s*/\s*d[a-z]\b")
_PRIMES = re.compile(r"'{1,3}")
_PROPER = re.compile(r"\s*\\frac\s*\{?\s*(\d+)\s*\}?\s*\{?\s*(\d+)\s*\}?")
_PRODUCT = re.compile(r"[abcd]+|[b-df-hj-np-tv-zA-DF-HJ-NP-TV-Z]+|[a-zA-Z]{1,2}")  # letters that spell no word
_LISTED = {"gcd", "lcm", "max", "min"}
_PLAIN_FUNCTIONS = FUNCTIONS | _LISTED | {"sqrt", "pi"}


def parse(text: str) -> Tree:
    """The tree of one expression. Raises Unread."""
    if _DERIVATIVE.search(text):
        raise Unread("a derivative")
    parser = _Parser(text)
    tree = parser.expression()
    if parser.peek():
        raise Unread(f"{text[parser.at : parser.at + 20]!r} was not read")
    return tree


class _Parser(Commands):
    # ---- Sums and products ------------------------------------------------------------------------

    def expression(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread("too deep")
        terms = [self.signed_term()]
        while self.peek() in ("+", "-"):
            terms.append(self.signed_term())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", terms)

    def signed_term(self) -> Tree:
        negative = False
        while (mark := self.peek()) in ("+", "-"):
            negative ^= mark == "-"
            self.at += 1
        term = self.term()
        return ("neg", term) if negative else term

    def term(self) -> Tree:
        tree, factors = None, [self.factor()]
        while True:
            mark, start = self.peek(), self.at
            if mark in ("*", "\\cdot", "\\times", "\\ast"):
                self.at += len(mark)
                factors.append(self.signed_factor())
            elif mark in ("/", "\\div"):
                self.at += len(mark)
                tree = ("div", product(tree, factors), self.signed_factor())
                factors = []
            elif self.begins_factor(mark):
                self.check_neighbours(start)
                factors.append(self.factor())
            else:
                return product(tree, factors)

    def signed_factor(self) -> Tree:
        negative = False
        while (mark := self.peek()) in ("+", "-"):
            negative ^= mark == "-"
            self.at += 1
        factor = self.factor()
        return ("neg", factor) if negative else factor

    def check_neighbours(self, start: int) -> None:
        """A numeral behind another, or behind a letter, is no factor: `2 3`, `0x2A`."""
        before = self.text[max(0, start - 60) : start].rstrip()
        if NUMBER.match(self.text, start) and re.search(r"[A-Za-z]$|(?:^|[^\d.^]|\^\d*\s)[\d.]+$", before):
            raise Unread("two numbers, or a letter and a number, without a sign between them")

    def begins_factor(self, mark: str) -> bool:
        if mark == "|":
            return self.bars == 0
        if mark[:1] == "\\":
            return mark[1:] in PREFIXES
        return bool(mark) and (mark.isascii() and mark.isalnum() or mark in "({[.")

    # ---- Factors ----------------------------------------------------------------------------------

    def factor(self) -> Tree:
        base = self.postfix(self.primary())
        if self.peek() == "^":
            self.at += 1
            base = ("pow", base, self.exponent())
            if self.peek() == "^":
                raise Unread("two exponents")
            base = self.postfix(base)
        return base

    def postfix(self, tree: Tree) -> Tree:
        while (mark := self.peek()) in ("!", "°") and mark:
            if mark == "!" and tree[0] == "fun" and tree[1] == "factorial":
                raise Unread("a double factorial")
            tree = ("fun", "factorial", [tree]) if mark == "!" else ("mul", [tree, ("fun", "degree", [])])
            self.at += 1
        return tree

    def exponent(self) -> Tree:
        mark = self.peek()
        if mark == "{":
            return self.group("{", "}")
        if mark == "(":
            return self.group("(", ")")
        if mark == "-":
            self.at += 1
            return ("neg", self.exponent())
        if mark.isdigit():
            power: Tree = ("num", self.digits())
            if self.peek() == "^":  # 2^3^2 without braces is a tower in program notation only
                self.at += 1
                return ("pow", power, self.exponent())
            return power
        return self.argument()

    def group(self, opened: str, closed: str) -> Tree:
        self.take(opened)
        bars, self.bars = self.bars, 0
        tree = self.expression()
        self.bars = bars
        self.take(closed)
        return tree

    def argument(self) -> Tree:
        """What \\frac, \\sqrt and ^ take: a group, or one digit, letter or command."""
        mark = self.peek()
        if mark == "{":
            return self.group("{", "}")
        if mark.isascii() and mark.isdigit():
            self.at += 1
            return ("num", Fraction(int(mark)))
        if len(mark) == 1 and mark.isascii() and mark.isalpha():
            self.at += 1
            return letter(mark)
        if mark[:1] == "\\":
            return self.primary()
        raise Unread("an argument is missing")

    def primary(self) -> Tree:
        mark = self.peek()
        if mark and (mark.isascii() and mark.isdigit() or mark == "."):
            return self.numeral()
        if mark in ("(", "[", "{"):
            return self.group(mark, {"(": ")", "[": "]", "{": "}"}[mark])
        if mark == "|" and self.bars == 0:
            return self.bars_around("|", "|")
        if mark[:1] == "\\":
            return self.command(mark[1:])
        if word := self.match(WORD):
            return self.word(word)
        raise Unread(f"{mark!r} is not known")

    def numeral(self) -> Tree:
        found = self.match(NUMBER)
        if not found:
            raise Unread("a point without digits")
        value = ("num", fraction(found[0]))
        proper = _PROPER.match(self.text, self.at)
        if proper and "." not in found[0] and int(proper[1]) < int(proper[2]):  # 2\frac{1}{2} is a mixed number
            self.at = proper.end()
            return ("num", value[1] + Fraction(int(proper[1]), int(proper[2])))
        return value

    def word(self, found: re.Match) -> Tree:
        """A run of letters: a function's name, or a product of letters that spells no word."""
        letters = found[0]
        if letters in _LISTED:
            return self.listed(letters)
        if letters in _PLAIN_FUNCTIONS:
            return self.command(letters, moved=True)
        if not _PRODUCT.fullmatch(letters) or len(letters) > 5:
            raise Unread(f"the word {letters!r}")
        if letters in ("f", "g", "h", "O") and self.peek() == "(":
            raise Unread(f"the function {letters}")
        if len(letters) > 1:  # the exponent belongs to the last letter alone
            self.at = found.start() + 1
            return letter(letters[0])
        return self.subscripted(letters)

    def subscripted(self, name: str) -> Tree:
        low = self.match(_SUBSCRIPT)
        primes = self.match(_PRIMES)
        if low or primes:
            return ("sym", f"{name}_{re.sub(' ', '', low[1] or low[2]) if low else ''}{primes[0] if primes else ''}")
        if self.peek() == "_":
            raise Unread("a subscript")
        return letter(name)
