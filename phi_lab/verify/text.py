"""What the text of an answer tells by itself: exact numbers, hostile text, clean LaTeX.

Plain Python, microseconds, bounded: `number` reads integers, decimals and fractions (nothing longer
than MAX_DIGITS), `hostile` says what must not reach a parser, `clean` takes the dressing off.
"""

import math
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

MAX_DIGITS = 300  # more than any answer needs; int() on a megabyte of digits takes minutes
_INTEGER = re.compile(r"[+-]?\d{1,30}", re.ASCII)
_D = r"(?:\d{1,3}(?:(?:,| )\d{3})+|(?=[\d,]*,0)\d{1,2}(?:,\d\d)+,\d{3}|\d+)?(?:\.\d+)?"  # the second is Indian
_NUMBER = re.compile(
    rf"(?P<s>[+-]*)(?:(?P<a>{_D})(?:/(?P<b>{_D}))?"
    rf"|(?P<m>\d*)(?:\\frac|(?<=\d) (?=\d+/))\{{?(?P<t>[+-]?)(?P<c>{_D})\}}?/?"
    rf"\{{?(?P<u>-?)(?P<d>{_D})\}}?)"
    r"(?P<p>%?)\.?",
    re.ASCII,
)
_SPACING = re.compile(r"(?<!\\)\\[!,;: ]|\\q?quad(?![a-z])|\\displaystyle|~")
_LEFT = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-z])\.?")
_TEXT = r"\\(?:text(?:bf|it|rm|sf|normal)?|mbox|underline|math(?:rm|bf|it|sf)|operatorname)\s*\{([^{}]*)\}"
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
    s = s.replace("\\%", "%")
    if "{" in s:
        s = re.sub(r"\s*\{\s*,\s*\}", ",", s)
    if "\\" in s:
        s = re.sub(r",\s*\\!\s*", ",", re.sub(r"\\[dtc]frac", r"\\frac", s))
        s = re.sub(_TEXT, r"\1", _SPACING.sub("", _LEFT.sub("", s)))
        s = braced(s)
    while s[:1] in ("(", "{") and s[-1:] == {"(": ")", "{": "}"}[s[0]] and not re.search(r"[(){}]", s[1:-1]):
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
    common = math.gcd(num, den)
    return sign * num // common, den // common, bool(g["p"])


def braced(s):
    """\\frac12 as \\frac{1}{2}: fractions with all their braces."""
    s = re.sub(r"\\frac\s*(\d)", r"\\frac{\1}", s)
    return re.sub(r"\\frac\s*(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}", s)


def _decimal(digits):
    whole, _, part = digits.replace(",", "").replace(" ", "").partition(".")
    return int((whole or "0") + part), 10 ** len(part)


def same_number(a, b):
    """Are two results of `number` equal? A percent sign counts as a unit, which may be left out."""
    return a[0] == b[0] and a[1] == b[1]


_DANGER = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\ud800-\udfff]|\d{301}|\d{4,}\s*[)}]*\s*!|![\s)}]*!|\^\s*[({]*\s*[+-]?\s*\d[\d,]{4,}"
)


def hostile(text):
    """Would this text be dangerous to parse? True for NUL bytes, lone surrogates, deep nesting,
    long digit runs, towers of powers and of factorials. Linear in the length of the text."""
    if len(text) > 2000 or _DANGER.search(text) or text.count("!") > 6 + text.count("\\!"):
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
    "∞": "\\infty ", "×": "\\times ", "÷": "/", "·": "\\cdot ", "∪": "\\cup ",
    "±": "\\pm ", "∈": "\\in ", "≈": "\\approx ", "ℝ": "\\mathbb{R}", "∅": "\\emptyset ",
    "€": "\\€", "£": "", "¥": "", "−": "-", "–": "-", "。": "", "⁄": "/", "’": "'",
    "π": "\\pi ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "λ": "\\lambda ",
}
_COMMANDS = r"""≤ leq le leqslant leqq <=; ≥ geq ge geqslant geqq >=; < lt; > gt; ≠ ne neq != \not=; ( langle; ) rangle;
\frac dfrac tfrac cfrac; \binom dbinom tbinom; ° degree; \infty infinity; \emptyset varnothing"""
_COMMANDS = {name: names.split()[0] for names in _COMMANDS.split(";") for name in names.split()[1:]}
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
_SMALL = (_SMALL + "seventeen eighteen nineteen").split()
_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_VALUES = {**{word: n for n, word in enumerate(_SMALL)}, **_TENS}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_TWO = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_SMALL[1:10])}))?|(?:{'|'.join(_SMALL[::-1])}))"
_THREE = rf"(?:{_TWO} hundred(?:(?: and)? {_TWO})?|{_TWO})"
_SPELT = re.compile(  # twenty-one, two thousand and ten, 3 million
    rf"(?:^|(?<=«)|(?<=, ))(?:{_THREE}|\d[\d,.]*(?= ?«?(?:{'|'.join(_SCALES)})))"
    rf"(?: ?«?(?:{'|'.join(_SCALES)})(?:,?(?: and)? {_THREE})?)*(?![\w-])",
    re.IGNORECASE,
)


def _spelt(match):
    """The value of number words, as digits."""
    total = part = 0
    for word in re.findall(r"[\d,.]+|[a-z]+", match[0].lower()):
        if word in _SCALES:
            total, part = total + part * _SCALES[word], 0
        elif word == "hundred":
            part *= 100
        elif word != "and":
            part += _VALUES[word] if word in _VALUES else Fraction(*_decimal(word.rstrip(",.")))
    return str(total + part)


def _repeating(match):
    """0.1\\overline{6} as the fraction 15/90."""
    whole, part, again = match[1] or "0", match[2], match[3]
    top = int(whole + part + again) - int(whole + part)
    return rf"\frac{{{top}}}{{{10 ** len(part) * (10 ** len(again) - 1)}}}"


_CLEAN = [  # (pattern, replacement), in this order
    (r"^[\s,:*`]+|[\s,:*`]+$", ""),
    (r"(\d*)\.(\d*)\\(?:overline|bar)\s*\{(\d+)\}", _repeating),
    (r",\s*\\!\s*|\s*\{\s*,\s*\}|(?<=\d)'(?=\d{3})", ","),
    (r"(?<!\\)(?:\\[()\[\]]|\$+)|\\[lr]brace(?![a-z])", " "),
    (r"(?<![A-Za-z\\])(sqrt|pi|infty|infinity)(?![A-Za-z])", r"\\\1 "),
    (r"\\([a-z]+)(?![a-z])|<=|>=|!=|\\not\s*=", lambda m: _COMMANDS.get(m[1] or m[0], m[0])),
    (_LEFT.pattern, ""),
    (rf"{_SPACING.pattern}|\\quad(?=[a-z])", " "),
    (r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}", r"\\binom{\1}{\2}"),
    (r"(^|\\in)\s*\\mathbb\s*\{?R\}?\s*$", r"\1(-\\infty,\\infty)"),
    (r"\\(?:math(?:bb|cal|bf|it)|overline|vec)\s*\{([A-Za-z]{1,3})\}", r"\1"),
    (_TEXT, r" «\1» "),
    (r"\\([$€])\s*(\d[\d,.]*\d|\d)(?:[«\s]*(\w+illion)[\s»]*)?", r"\2 \3 «\1» "),
    (r"\\(?:[$€]|(?:boxed|fbox)\s*(?=\{))", ""),
    (r"(?i)^[«\s]*(?:(?:the )?(?:final )?answer(?: is|:)|rs\.?(?= ?\d))[\s»:]*", ""),
    (r"(?i)[«,\s]*(?:\bor )?\b(?:approximately|approx\.|about)[\s»]*", r" \\approx "),
    (r"(?<=\d)[«\s]+to[\s»]+(?=\d)", ":"),
    (r"(?i)^[«\s]*(?:the set of )?all real(?: number)?s?(?: \w)?[\s».]*$", r"(-\\infty,\\infty)"),
    (r"(?i)^[«\s]*(?:no (?:real )?solutions?|none|(?:the )?empty set|\\\{\s*\\\})[\s».]*$", r"\\emptyset"),
    (r"\^\s*\{?\s*(?:\\circ|°)\s*\}?", "°"),
    (r"\\?((?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)?)\s*[({]?\s*(\d[\d./]*) ?°\s*[)}]?", r"\\\1(\\frac{\2\\pi}{180})"),
    (r"\^\s*\{?\s*«?\s*(?:th|st|nd|rd)\s*»?\s*\}?|(?<=\d)(?:th|st|nd|rd)\b", ""),
    (r"\\?%|«?\s*\b(?:percent(?:age)?|pct)\b\s*»?", "%"),
    (r"^\\\{\s*[a-z]\s*(?:\\in\s*\S+\s*)?(?:\\mid|\||:)\s*([^{}]*)\\\}$", r"\1"),
    (r"(^\s*|\\cup\s*)\]", r"\1("),
    (r"\[(?=\s*$|\s*\\cup)", ")"),
    (r"(?<=\d)[eE]([+-]?\d{1,3})(?![\w.])", r"\\times 10^{\1}"),
    (r"(?<=[\w)}])\*\*(?=[\w({-])", "^"),
    (r"(?<=[A-Z][a-z][a-z])([a-z]{0,6}\.? \d{1,2}), ?(?=\d{4}\b)", r"\1 "),
    (r"(?i)(?<=\d)\s*«?\s*([ap])\.?m\b\.?\s*»?", lambda m: f"{m[1].lower()}m"),
    (r"^\s*0(?=\d:\d\d)|(?<=\d):00(?=[ap]m)", ""),
    (_SPELT, _spelt),
    (r"\b((?:hour|minute|year|month|week|day|dollar)s?|feet)»?,?\s+«?\s*(?:and\b\s*)?»?\s*(?=\d)", r"\1 "),
    (r"[«\s]*,?\s*(?<!\\)\b(?:and|or)\b[»\s]*", ","),
    (r"√\s*(\d+|\w)?", lambda m: rf"\sqrt{{{m[1]}}}" if m[1] else r"\sqrt"),
    (r"\s+", " "),
]
_CLEAN = [(re.compile(p), r) for p, r in _CLEAN]


def _ascii(s):
    """Unicode signs as LaTeX: raised and lowered digits, fractions, Greek, full width."""
    s = re.sub("[⁰¹²³⁴-⁹⁻]+", lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", s)
    s = re.sub("[₀-₉]+", lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", s)
    s = re.sub("[½¼¾⅐-⅞]", lambda m: f"\\frac{{{unicodedata.normalize('NFKC', m[0]).replace('⁄', '}{')}}}", s)
    return "".join(_UNICODE.get(c) or _UNICODE.get(n := unicodedata.normalize("NFKC", c), n) for c in s)


def clean(text):
    """The answer without LaTeX dressing, one way to write each sign; \\text{} becomes « »."""
    s = text if text.isascii() else _ascii(text)
    if "\\begin" not in s:
        s = re.sub(r"\\\\(?=[A-Za-z(\[{])", r"\\", s)  # doubly escaped text
    for pattern, replacement in _CLEAN:
        s = pattern.sub(replacement, s)
    head, mark, tail = s.partition("\\approx")
    if mark:  # "x \approx 11" states 11; "1/3 \approx 0.33" states 1/3
        s = tail if re.fullmatch(r"\s*[A-Za-z]?\s*", head) else head
    s = s.lstrip(" ,:*`").rstrip(" .,:*`")
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
