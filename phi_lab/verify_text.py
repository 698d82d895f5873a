"""What the text of an answer tells by itself: exact numbers, hostile text, clean LaTeX.

Plain Python, microseconds, bounded: `number` reads integers, decimals and fractions (nothing longer
than MAX_DIGITS), `hostile` says what must not reach a parser, `clean` takes the dressing off.
"""

import re
from functools import lru_cache

MAX_DIGITS = 300  # more than any answer needs; int() on a megabyte of digits takes minutes
_INTEGER = re.compile(r"[+-]?\d{1,30}", re.ASCII)
_D = r"(?:\d{1,3}(?:(?:,| )\d{3})+|\d+)?(?:\.\d+)?"
_NUMBER = re.compile(
    rf"(?P<s>[+-]*)(?:(?P<a>{_D})(?:/(?P<b>{_D}))?"
    rf"|(?P<m>\d*)(?:\\frac|(?<=\d) (?=\d+/))\{{?(?P<t>[+-]?)(?P<c>{_D})\}}?/?"
    rf"\{{?(?P<u>-?)(?P<d>{_D})\}}?)"
    r"(?P<p>%?)\.?",
    re.ASCII,
)
_SPACING = re.compile(r"(?<!\\)\\[!,;: ]|\\q?quad(?![a-z])|\\displaystyle|~")
_LEFT = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-z])\.?")
_TEXT = r"\\(?:text(?:bf|it|rm|normal)?|mbox|math(?:rm|bf|it|sf)|operatorname)\s*\{([^{}]*)\}"
_SIGNS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "})


@lru_cache(maxsize=8192)
def number(text):
    """The exact value of a plain number as (numerator, denominator, is_percent), in lowest terms.

    Takes signs, thousands marks, decimals, a/b, \\frac{a}{b}, mixed numbers and the LaTeX dressing
    around them. Returns None for everything else, and for anything longer than MAX_DIGITS."""
    if _INTEGER.fullmatch(text):
        return int(text), 1, False
    if len(text) > MAX_DIGITS:
        return None
    s = text.translate(_SIGNS).replace("\\$", "").strip(" \n\t$")
    s = s.replace("\\%", "%").replace("\\dfrac", "\\frac")
    if "{" in s:
        s = re.sub(r"\s*\{\s*,\s*\}", ",", s)
    if "\\" in s:
        s = s.replace("\\tfrac", "\\frac").replace("\\cfrac", "\\frac")
        s = re.sub(r",\s*\\!\s*", ",", s)
        s = re.sub(_TEXT, r"\1", _SPACING.sub("", _LEFT.sub("", s)))
        s = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", s)
        s = re.sub(r"\\frac\s*(\d|\{[^{}]*\})\s*(\d|\{[^{}]*\})", r"\\frac\1\2", s)
        s = re.sub(r"\\frac(\d)", r"\\frac{\1}", s)
    while (
        s[:1] in ("(", "{")
        and s[-1:] == {"(": ")", "{": "}"}[s[0]]
        and not re.search(r"[(){}]", s[1:-1])
    ):
        s = s[1:-1].strip()
        if "," in s:
            return None  # (2,251) is a pair
    s = re.sub(r"\(([+-]?[\d., ]*)\)", r"\1", s)  # (3)/(4), -(5)
    s = re.sub(r"\s*([{}/%+-])\s*", r"\1", s)
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
    (p, q), (r, t) = _decimal(top), _decimal(bottom)
    if r == 0:
        return None
    num, den = p * t + int(whole) * q * r, q * r
    common = _gcd(num, den)
    return sign * num // common, den // common, bool(g["p"])


def _decimal(digits):
    whole, _, part = digits.replace(",", "").replace(" ", "").partition(".")
    return int((whole or "0") + part), 10 ** len(part)


def _gcd(a, b):
    while b:
        a, b = b, a % b
    return abs(a) or 1


def same_number(a, b):
    """Are two results of `number` equal? A percent sign counts as a unit, which may be left out."""
    return a[0] == b[0] and a[1] == b[1]


def hostile(text):
    """Would this text be dangerous to parse? True for NUL bytes, lone surrogates, deep nesting,
    long digit runs, towers of powers and of factorials. Linear in the length of the text."""
    if len(text) > 2000 or re.search(r"[\x00-\x08\x0b\x0e-\x1f\ud800-\udfff]|\d{301}", text):
        return True
    if re.search(r"\d{4,}\s*[)}]*\s*!|![\s)}]*!|\^\s*[({]*\s*[+-]?\s*\d[\d,]{4,}", text):
        return True
    if len(re.findall(r"(?<!\\)!", text)) > 6:
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


# ---- Text: from what a model writes to a bare expression ----------------------------------------

_UNICODE = {
    "²": "^2", "³": "^3", "°": "^\\circ", "∞": "\\infty ", "π": "\\pi ", "×": "\\times ", "÷": "/",
    "·": "\\cdot ", "≤": "≤", "≥": "≥", "½": "\\frac{1}{2}", "∪": "\\cup ",
    "±": "\\pm ", "∈": "\\in ",
    "€": "", "£": "", "¥": "", "−": "-", "–": "-", "％": "%", "，": ",", "。": "", "θ": "\\theta ",
}  # fmt: skip
UNIT = (
    r"(?:square |cubic |sq\.? ?)?(?:units?|minutes?|mins?|hours?|hrs?|seconds?|secs?|days?|weeks?|"
    r"months?|years?|dollars?|cents?|euros?|degrees?|inch(?:es)?|feet|foot|ft|yards?|miles?|mph|"
    r"km|cm|mm|kg|grams?|meters?|metres?|liters?|litres?|people|students?|ways)"
)
_CLEAN = [  # (pattern, replacement), in this order
    (r",\s*\\!\s*", ","),
    (r"\s*\{\s*,\s*\}", ","),
    (r"\\(?:boxed|fbox)\s*(?=\{)", ""),
    (r"\\\$", ""),
    (r"(?<!\\)\\[()\[\]]|\$+|\\[lr]brace\b", " "),
    (_LEFT.pattern, ""),
    (_SPACING.pattern, " "),
    (r"\\quad(?=[a-z])", " "),
    (r"\\[dtc]frac", r"\\frac"),
    (_TEXT, r" «\1» "),
    (r"\\(?:math(?:bb|cal)|overline|vec)\s*\{([A-Za-z])\}", r"\1"),
    (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![a-z])", ""),
    (r"\^\s*\{?\s*«?\s*(?:th|st|nd|rd)\s*»?\s*\}?", ""),
    (r"\\?%|«?\s*\b(?:percent(?:age)?|pct)\b\s*»?", "%"),
    (r"\\leq?(?:slant)?(?![a-z])|<=|\\leqq", "≤"),
    (r"\\geq?(?:slant)?(?![a-z])|>=|\\geqq", "≥"),
    (r"\\lt(?![a-z])", "<"),
    (r"\\gt(?![a-z])", ">"),
    (r"\\neq?(?![a-z])|!=|\\not\s*=", "≠"),
    (r"(?<![A-Za-z\\])[«\s]*,?\s*\b(?:and|or)\b[»\s]*(?![A-Za-z])|;", ","),
    (r"√\s*(\d+|\w)", r"\\sqrt{\1}"),
    (r"√\s*\(", r"\\sqrt("),
    (r"(?<![A-Za-z\\])(sqrt|pi|infty|infinity)(?![A-Za-z])", r"\\\1 "),
    (r"\\infinity", r"\\infty"),
    (r"\s+", " "),
]
_CLEAN = [(re.compile(p), r) for p, r in _CLEAN]


def clean(text):
    """The answer without LaTeX dressing, one way to write each sign; \\text{} becomes « »."""
    s = "".join(_UNICODE.get(c, c) for c in text) if not text.isascii() else text
    if "\\begin" not in s:
        s = re.sub(r"\\\\(?=[A-Za-z(\[{])", r"\\", s)  # doubly escaped text
    for pattern, replacement in _CLEAN:
        s = pattern.sub(replacement, s)
    head, mark, tail = s.partition("\\approx")
    if mark:  # "x \approx 11" states 11; "1/3 \approx 0.33" states 1/3
        s = tail if re.fullmatch(r"\s*[A-Za-z]?\s*", head) else head
    s = s.lstrip(" ,:*").rstrip(" .,:*")
    while s[:1] == "{" and closes(s) == len(s) - 1:
        s = s[1:-1].strip().rstrip(" .,:")
    return s


def closes(s):
    """Where the bracket that opens `s` closes, or -1. Bracket kinds may mix: [0,1)."""
    depth = 0
    for mark in re.finditer(r"[(\[{]|[)\]}]", s):
        depth += 1 if mark[0] in "([{" else -1
        if depth == 0:
            return mark.start()
    return -1
