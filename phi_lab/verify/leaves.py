"""The leaves of an answer: numbers, units, words, and expressions that are compared by value."""

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from phi_lab.verify import units, value
from phi_lab.verify.latex import parse
from phi_lab.verify.latex_commands import FUNCTIONS
from phi_lab.verify.text import number, same_number
from phi_lab.verify.tree import Tree, Unread, names, operators, written

NOT_READ = (Unread, ZeroDivisionError, RecursionError, OverflowError, MemoryError)
_RUN = re.compile(r"[^\W\d_]{3,}")
_LETTERS = re.compile(r"[abcd]{3,4}|[b-df-hj-np-tv-z]{3,4}|[B-DF-HJ-NP-TV-Z]{3,4}|"
                      r"[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{3,5}")  # products, not words
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|\\?[^\W\d_]+|[^\w\s]")
_AFTER = re.compile(  # a number, and the words or the unit behind it
    r"(?P<value>.*?(?:[\d})°!]|(?<![A-Za-z\\])i(?![A-Za-z]))|\\?pi|.*[^A-Za-z]\\pi)\s*"
    r"(?P<unit>«.*|(?<=[\d})°\si])(?:[A-Za-zµΩ°$¢€£¥₹%][^\\]*|\\pmod.*)|[°%$¢€£¥₹'].*|\([A-Za-z]{3,}[A-Za-z ]*\))$"
)
_COMPOSED = re.compile(r"(\d+(?:\.\d+)?)[\s«]*([A-Za-z]+|°|'{1,2})[\s»]*")
_BASED = re.compile(r"\(?([0-9A-Fa-f]+?)\)?_\{?[\s«(]*(\w+)[\s»)]*\}?")
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
          "ten": "10",           "sixteen": "16", "twelve": "12"}
_INFINITY = re.compile(r"([+-]?)\s*\\infty")
_AS_WRITTEN = re.compile(r"\d:\d|^\d{4}-\d\d-\d\d$|\?|\\ldots|\\dots|^\d+/\d+/\d+$")


class Same(NamedTuple):
    """`same`: True, False, or None where one answer is not understood; `rule`: what decided."""

    same: bool | None
    rule: str


def compare(a: str, g: str, strict: bool) -> Same:
    """Compare two leaves that are no relations."""
    (x, unit), (y, other) = measured(a), measured(g, gold=True)
    if unit and other is None and not number(y):
        y, other = measured(y, loose=True, gold=True)
        if other is None and not re.search("[«°%$']", a) and re.search(r"(?<![\\A-Za-z])[A-Za-z]", y):
            x, unit = a, None  # 2mg beside 2gm is a product
    elif other and unit is None and not number(x):
        x, unit = measured(x, loose=True)
    if not unit and not other:
        return _plain(bare(x), bare(y), "value", strict)
    factor = units.compatible(unit, other)
    if factor is None:
        return Same(False, "unit")
    if factor == 1:
        return _plain(bare(x), bare(y), "unit", strict)
    return _scaled(bare(x), factor, bare(y), strict)


def _plain(a: str, g: str, rule: str, strict: bool) -> Same:
    if not re.search(r"\w", a):
        return Same(False, "nothing in it")
    x, y = number(a), number(g)
    if x and y:
        return Same(same_number(x, y), rule if rule != "value" else "number")
    based = [_BASED.fullmatch(s) for s in (a, g)]
    if based[0] and based[1]:
        digits, bases = zip(*((m[1], _BASES.get(m[2], m[2])) for m in based if m), strict=True)
        if all(base.isdigit() for base in bases):
            return Same(digits[0] == digits[1] and bases[0] == bases[1], "base")
    if len(a) == len(g) == 1 and a.isalpha() and g.isalpha():  # a choice letter may be small, a variable may not
        return Same(a.casefold() == g.casefold() and a.casefold() in "abcdefghij", "choice")
    if words(a) or words(g):
        return Same(tokens(a) == tokens(g) != [], "words")
    if any(_AS_WRITTEN.search(s) for s in (a, g)):
        return Same(tokens(a) == tokens(g), "as written")
    signs = [_INFINITY.fullmatch(s) for s in (a, g)]
    if any(signs):
        minus = [m[1] == "-" for m in signs if m]
        return Same(len(minus) == 2 and minus[0] == minus[1], "infinity")
    return _parsed(a, g, rule, strict)


def _parsed(a: str, g: str, rule: str, strict: bool) -> Same:
    try:
        trees = parse(a), parse(g)
        if strict and (left := left_open(*trees)):
            return Same(False, f"not worked out: {left}")
        same = value.same(*trees)
        if same is False and _rounded(a, g, trees):
            return Same(True, "rounded")
    except NOT_READ as error:
        return Same(None, f"not read: {error}"[:120])
    return Same(same, rule if same is not None else "not read: no value at the points of comparison")


def left_open(answer: Tree, gold: Tree) -> str:
    """What an answer leaves to be worked out that the gold has worked out, in a word or two; "" for nothing. A copy of
    the question has the gold's value too, so beside a gold that is a number as it is written down, the answer must be
    one."""
    if left := operators(answer) - operators(gold):
        return ", ".join(sorted(left))
    return "no number as it is written" if written(gold) and not written(answer) else ""


def _scaled(x: str, factor: Fraction, y: str, strict: bool) -> Same:
    try:
        answer, gold = parse(x), parse(y)
        if strict and (left := left_open(answer, gold)):
            return Same(False, f"not worked out: {left}")
        return Same(value.same(("mul", [answer, ("num", factor)]), gold), "unit")
    except NOT_READ as error:
        return Same(None, f"not read: {error}"[:120])


def measured(s: str, loose: bool = False, gold: bool = False) -> tuple[str, units.Unit | None]:
    """A leaf without its unit, and the unit; words that change the number are no unit. `loose`: the other side has a
    unit; `gold`: of the gold, whose letters are units only where nothing else can be meant."""
    if composed := _composed(s):
        return composed
    if re.search(r"\d:\d", s):
        return s, None
    if s[-1:] == "%" and number(s[:-1].rstrip("\\ ")):
        return s[:-1].rstrip("\\ "), units.read("%")
    match = _AFTER.fullmatch(s)
    if not match or not match["value"].strip() or number(s):
        return s, None
    said = match["unit"]
    if said.startswith("\\pmod"):
        return match["value"], units.Unit(" ".join(re.findall(r"\w+", said)))
    named = re.sub(r"[«»()]|^\s*of\b(?! the order)", " ", said).strip()
    unit = units.read(named)
    if unit is None:
        return match["value"], None
    marked = said[0] in "«°%$¢€£¥₹'("
    if unit.dimensions is None:
        if said[0] in "°%$¢€£¥₹'" or (not marked and _LETTERS.fullmatch(named)):
            return s, None
        if units.changes_the_number(named) or len(named.split()) > 4:
            return s, None
        if not marked and not (number(match["value"]) and all(len(w) > 2 for w in re.findall(r"[A-Za-z]+", named))):
            return s, None
        if named in ("exactly", "exact"):
            unit = None
    elif (
        not marked
        and re.fullmatch(r"[A-Za-z]", named)
        and not (loose and named in units.SINGLE and number(match["value"]))
    ):
        return s, None  # 12 m is a product, unless the other answer is a length
    elif not marked and not re.search(r"[A-Za-zµΩ]{2}|/", named) and not loose:
        return s, None
    elif not marked and not _stands_apart(match, loose, gold):
        return s, None  # 2mg and 3/2 kT are products
    elif said[0] == "°" and re.search(r"\\?(?:sin|cos|tan|cot|sec|csc)", match["value"]):
        return s, None
    return match["value"].strip(), unit


def _stands_apart(found: re.Match, loose: bool, gold: bool) -> bool:
    r"""May letters that no sign marks be a unit? In an answer they may behind a number or a space (5cm, (2+x) cm), in a
    gold only behind both, or behind a number whose unit the other side names. The space behind a command says nothing,
    and behind a fraction a gold's unit is a word: 3/4 cup, but not \frac32 kT."""
    value = found["value"]
    plain = bool(number(value))
    spaced = found.start("unit") > found.end("value") and not re.search(r"\\[a-z]+$", value)
    if gold:
        spaced = spaced and ("\\" not in value or bool(re.match("[a-z]{3}", found["unit"])))
        return plain and (spaced or loose)
    return plain or spaced


def _composed(s: str) -> tuple[str, units.Unit] | None:
    """2 hours 30 minutes and 24° 36' as one number of the smaller unit; None for a list, and for units of one size."""
    found, at = [], 0
    while piece := _COMPOSED.match(s, at):
        found.append(piece)
        at = piece.end()
    if len(found) < 2 or at != len(s):
        return None
    read = [unit for piece in found if (unit := units.read(piece[2])) and unit.dimensions]
    if len(read) < len(found) or len({unit.dimensions for unit in read}) > 1:
        return None
    if any(large.factor <= small.factor for large, small in pairwise(read)):
        return None
    parts = [unit.factor * Fraction(piece[1]) for unit, piece in zip(read, found, strict=True)]
    total = sum(parts, Fraction(0)) / read[-1].factor
    return f"{total.numerator}/{total.denominator}", read[-1]


def squeezed(s: str) -> str:
    """A text without its spaces and marks."""
    return re.sub(r"[«» ]", "", s)


def bare(s: str) -> str:
    """A leaf without its « » and the brackets around it."""
    s = re.sub("[«»]", " ", s).strip()
    s = s if s.endswith("..") else s.rstrip(" .")
    while s[:1] in ("(", "{") and s[-1:] in (")", "}") and _closed(s):
        s = s[1:-1].strip()
    return s[:-1] if s[-1:] == "%" and number(s[:-1]) else s


def _closed(s: str) -> bool:
    depth = 0
    for at, mark in enumerate(s):
        depth += (mark in "({") - (mark in ")}")
        if depth == 0:
            return at == len(s) - 1
    return False


def words(s: str) -> bool:
    """Are there words in a text, and not only the letters of mathematics?"""
    letters = re.sub(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+|_\{[^{}]*\}", " ", s)
    if re.fullmatch(r"(?i)no|yes|up|on|off|so", letters.strip()):
        return True
    return any(
        w not in FUNCTIONS | {"sqrt", "gcd", "lcm", "max", "min"} and not _LETTERS.fullmatch(w)
        for w in _RUN.findall(letters)
    )


def tokens(s: str) -> list[str]:
    """Words, numbers and signs of a text; its spaces, articles and a full stop at its end aside, and the case of words.

    Letters beside mathematics keep their case, and the a of Vitamin A is no article."""
    plain = not re.search(r"[\\^_=+/{}]", s)
    found, marked = [], False
    for token in _TOKEN.findall(re.sub("[\"`*]", " ", s).rstrip(" .!»")):
        if token in "«»":
            marked = token == "«"
        else:
            spelt = token[1:] == token[1:].lower() and len(token) > 1 or token.isupper() and len(token) > 1
            fold = token[0] != "\\" and (marked or spelt or (plain and len(token) == 1))
            found.append((token.lstrip("\\") or token, fold))
    kept = []
    for at, (token, fold) in enumerate(found):
        behind = found[at + 1][0] if at + 1 < len(found) else ""
        article = token.lower() in ("the", "an") or (token == "a" or (token == "A" and at == 0 and behind.islower()))
        if not (article and (len(token) > 1 or (len(behind) > 1 and behind.isalpha()))):
            kept.append(token.casefold() if fold else token)
    return kept


def _rounded(a: str, g: str, trees: tuple[Tree, Tree]) -> bool:
    """Is one side a decimal of six places and six significant digits or more that rounds the other's irrational value?

    Places alone would be an absolute tolerance: e^{-20} is 0.000000 to six of them."""
    for digits, tree in ((a, trees[1]), (g, trees[0])):
        significant = digits.strip(" -").replace(".", "").lstrip("0")
        if re.fullmatch(r"-?\d*\.\d{6,}", digits.strip()) and len(significant) >= 6 and not names(tree):
            return value.rounds(digits.strip(), tree)
    return False
