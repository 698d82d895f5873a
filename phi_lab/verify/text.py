"""What the text of an answer tells by itself: exact numbers, and whether it is hostile.

Plain Python, microseconds, bounded: `number` reads integers, decimals and fractions (nothing longer
than MAX_DIGITS), `hostile` says what must not reach a parser.
"""

import math
import re
from functools import lru_cache

MAX_DIGITS = 300  # more than any answer needs; int() on a megabyte of digits takes minutes
MAX_LENGTH = 20_000  # characters of an answer that is parsed
_INTEGER = re.compile(r"[+-]?\d{1,30}", re.ASCII)
# thousands never start with a zero (0,125 is no 125); the second form is Indian
_D = r"(?:[1-9]\d{0,2}(?:(?:,| )\d{3})+|(?=[\d,]*,0)[1-9]\d?(?:,\d\d)+,\d{3}|\d+)?(?:\.\d+)?"
_NUMBER = re.compile(
    rf"(?P<s>[+-]*)(?:(?P<a>{_D})(?:/(?P<b>{_D}))?"
    rf"|(?P<m>\d*)(?:\\frac|(?<=\d) (?=\d+/))\{{?(?P<t>[+-]?)(?P<c>{_D})\}}?/?"
    rf"\{{?(?P<u>-?)(?P<d>{_D})\}}?)"
    r"(?P<p>%?)\.?",
    re.ASCII,
)
SPACING = r"(?<!\\)\\[!,;: ]|\\q?quad(?![a-z])|\\displaystyle|~"
_SPACING = re.compile(SPACING)
_SPACED_DIGITS = re.compile(rf"(?<=\d)\s*(?:(?:{SPACING})\s*)+(?=(\d{{3}}(?!\d))?\d*)(?=\d)", re.ASCII)
# (3)/(4) and -(5), but not the factors of 2(3)
_BRACKETED = re.compile(r"(?:^|(?<=[-+/{]))\(([+-]?[\d.]+)\)(?=[/}%]|\.?$)", re.ASCII)
LEFT = r"\\(?:left|right|[bB]igg?[lrm]?|middle)(?![a-z])\.?"
_LEFT = re.compile(LEFT)
_TEXT = (
    r"\\(?:text(?:bf|it|rm|sf|normal)?|mbox|underline|math(?:rm|bf|it|sf)|boldsymbol|bm|operatorname)\s*\{([^{}]*)\}"
)
_SIGNS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "})


Number = tuple[int, int, bool]  # numerator, denominator, is_percent


def number(text: str) -> Number | None:
    """The exact value of a plain number as (numerator, denominator, is_percent), in lowest terms.

    Takes signs, thousands marks, decimals, a/b, \\frac{a}{b}, mixed numbers and the LaTeX dressing
    around them. Returns None for everything else, and for anything longer than MAX_DIGITS."""
    return _number(text) if len(text) <= MAX_DIGITS else None  # what is long is not kept either


@lru_cache(maxsize=8192)
def _number(text: str) -> Number | None:
    if _INTEGER.fullmatch(text):
        return int(text), 1, False
    s = text.translate(_SIGNS).replace("\\$", "").strip(" \n\t$")
    s = s.replace("\\%", "%")
    if "{" in s:
        s = re.sub(r"\s*\{\s*,\s*\}", ",", s)
    if "\\" in s:
        s = re.sub(r",\s*\\!\s*", ",", re.sub(r"\\[dtc]frac", r"\\frac", s))
        s = _SPACED_DIGITS.sub(lambda m: "" if m[1] else " ", _LEFT.sub("", s))
        s = re.sub(_TEXT, lambda m: apart(m, m[1]), _SPACING.sub("", s))
        s = braced(s)
    while s[:1] in ("(", "{") and s[-1:] == {"(": ")", "{": "}"}[s[0]] and not re.search(r"[(){}]", s[1:-1]):
        s = s[1:-1].strip()
        if "," in s:
            return None  # (2,251) is a pair
    s = re.sub(r"\s*([{}/%+-])\s*", r"\1", s)
    s = _BRACKETED.sub(r"\1", s)
    match = _NUMBER.fullmatch(s.strip())
    if not match:
        return None
    g = match.groupdict()
    sign = -1 if g["s"].count("-") % 2 else 1
    if g["c"] is not None:
        sign *= (-1 if g["t"] == "-" else 1) * (-1 if g["u"] else 1)
        whole, top, bottom = g["m"] or "0", g["c"], g["d"]
        if g["m"] and (g["t"] or g["u"]):
            return None
    else:
        whole, top, bottom = "0", g["a"], g["b"] if g["b"] is not None else "1"
    if not top or not bottom:
        return None
    (p, q), (r, t) = decimal(top), decimal(bottom)
    if r == 0:
        return None
    num, den = p * t + int(whole) * q * r, q * r
    common = math.gcd(num, den)
    return sign * num // common, den // common, bool(g["p"])


def apart(match: re.Match, content: str) -> str:
    """What stands in a text group, with spaces around it where a digit is beside the group."""
    beside = match.string[max(0, match.start() - 1) : match.start()], match.string[match.end() : match.end() + 1]
    return f" {content} " if any(mark.isdigit() for mark in beside) else content


def braced(s: str) -> str:
    """\\frac12 as \\frac{1}{2}: fractions with all their braces."""
    s = re.sub(r"\\frac\s*(\d)", r"\\frac{\1}", s)
    return re.sub(r"\\frac\s*(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}", s)


def decimal(digits: str) -> tuple[int, int]:
    """The value of digits with thousands marks and a point, as numerator and denominator."""
    whole, _, part = digits.replace(",", "").replace(" ", "").partition(".")
    return int((whole or "0") + part), 10 ** len(part)


def repeating(match: re.Match) -> str:
    """0.1\\overline{6} as the fraction 15/90."""
    whole, part, again = match[1] or "0", match[2], match[3] or match[4]
    top = int(whole + part + again) - int(whole + part)
    return rf"\frac{{{top}}}{{{10 ** len(part) * (10 ** len(again) - 1)}}}"


def same_number(a: Number, b: Number) -> bool:
    """Are two results of `number` equal? A percent sign counts as a unit, which may be left out."""
    return a[0] == b[0] and a[1] == b[1]


_DANGER = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\ud800-\udfff]|\d{301}|\d{4,}\s*[)}]*\s*!|![\s)}]*!|\^\s*[({]*\s*[+-]?\s*\d[\d,]{4,}"
)


def hostile(text: str) -> bool:
    """Would this text be dangerous to parse? True for NUL bytes, lone surrogates, deep nesting,
    long digit runs, towers of powers and of factorials. Linear in the length of the text."""
    if len(text) > MAX_LENGTH or _DANGER.search(text) or text.count("!") > 6 + text.count("\\!"):
        return True
    stack, powers = [], 0  # powers = exponents open around this place
    for mark in re.finditer(r"\^\s*(?:\\left)?\s*([({]?)|([({\[])|([)}\]])", text):
        if mark[0][0] == "^":
            if powers + 1 > 2 or (not mark[1] and re.match(r"\^\s*\w+\s*\^", text[mark.start() :])):
                return True
            if mark[1]:
                stack.append(1)
                powers += 1
        elif mark[2]:
            stack.append(0)
        elif stack:
            powers -= stack.pop()
        if len(stack) > 30:
            return True
    return False
