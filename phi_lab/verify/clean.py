"""From what a model writes to a bare expression: the dressing comes off, each sign is written in one way.

`clean` is a list of rewritings in a fixed order, each linear in the length of the text. What stood in \\text{} comes
out between « and », so that later rules can tell words from letters.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

from phi_lab.verify.text import LEFT, SPACING, apart, decimal, repeating

_UNICODE = {
    "∞": "\\infty ", "×": "\\times ", "÷": "/", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "∪": "\\cup ", "∶": ":",
    "±": "\\pm ", "∓": "\\mp ", "∈": "\\in ", "≈": "\\approx ", "ℝ": "\\mathbb{R}", "∅": "\\emptyset ", "∨": "\\lor ",
    "€": "\\€", "£": "\\£", "¥": "\\¥", "₹": "\\₹", "−": "-", "–": "-", "‐": "-", "‑": "-", "⁃": "-", "。": "",
    "⁄": "/",
    "’": "'", "′": "'", "″": "''", "“": '"', "”": '"', "π": "\\pi ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ",
    "λ": "\\lambda ", "φ": "\\phi ", "ω": "\\omega ", "⩽": "≤", "⩾": "≥", "≦": "≤", "≧": "≥", "、": ",", "或": " or ",
    "⟨": "(", "⟩": ")", "º": "°", "˚": "°",
}
_OURS = str.maketrans("«»", "  ")  # marks of this module's own
_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad]")
_NAMES = r"""≤ leq le leqslant leqq <=; ≥ geq ge geqslant geqq >=; < lt; > gt; ≠ ne neq !=; ( langle lparen;
) rangle rparen; \frac dfrac tfrac cfrac nicefrac sfrac xfrac; \binom dbinom tbinom; ° degree; \infty infinity;
\emptyset varnothing; \lor vee; \cdot ast; '  prime; : colon; | vert mid lvert rvert"""
_COMMANDS = {name: names.split()[0] for names in _NAMES.split(";") for name in names.split()[1:]}

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_VALUES = {**{word: n for n, word in enumerate(_SMALL)}, **_TENS}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
_TWO = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_SMALL[1:10])}))?|(?:{'|'.join(_SMALL[::-1])}))"
_THREE = rf"(?:{_TWO} hundred(?:(?: and)? {_TWO})?|{_TWO})"
_SPELT = re.compile(  # twenty-one, two thousand and ten, 3 million
    rf"(?:^|(?<=«)|(?<=, )|(?<=-))(?:{_THREE}|\d[\d,.]*(?= {{0,3}}«? ?(?:{'|'.join(_SCALES)})))"
    rf"(?: {{0,3}}«? ?(?:{'|'.join(_SCALES)})(?:,?(?: and)? {_THREE})?){{0,4}}(?![\w-])",
    re.IGNORECASE,
)
_SPELT_PART = re.compile(
    rf"^«?\s*(one|two|three|four|five|six|seven|nine)[ -]((?:{'|'.join(_PARTS)})s?)\s*»?$", re.IGNORECASE
)


def _spelt(match: re.Match) -> str:
    """The value of number words, as digits."""
    total, part = Fraction(0), Fraction(0)
    for word in re.findall(r"[\d,.]+|[a-z]+", match[0].lower()):
        if word == "hundred":
            part *= 100
        elif word in _SCALES:
            total, part = total + part * _SCALES[word], Fraction(0)
        elif word != "and":
            part += _VALUES[word] if word in _VALUES else Fraction(*decimal(word.rstrip(",.")))
    return str(total + part)


_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_PLAIN = (
    r"\\(?:boldsymbol|bm|pmb|mathbf|mathit|underline|"
    r"(?:text)?color(?:\[\w+\])?\s*\{[^{}]*\}|colorbox\s*\{[^{}]*\}|emph|ensuremath)\s*"
)
_TEXT = r"\\(text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|mathsf|mathtt|operatorname\*?)\s*" + _GROUP
_MINUTES = re.compile(r"[\d})] ?(?:\\[,;: ] ?)?\\[a-z]+\*? ?\{ ?min ?\}(?! ?[({\\])")


def _text_group(match: re.Match) -> str:
    """Words between « and »; numbers, and the upright letters e and i, as they are."""
    content = match[2].strip()
    if not content:
        return " "
    if re.fullmatch(r"[\d.,\s]+|[ei]", content) and (match[1][:4] == "math" or content[:1].isdigit()):
        return apart(match, content)
    name = re.fullmatch(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)|ln|log|gcd|lcm|max|min", content)
    if content == "min" and _MINUTES.search(match.string[max(0, match.start() - 6) : match.end() + 2]):
        name = None
    return f"\\{content} " if name else f" «{match[2]}» "


_RULES: list[tuple[str | re.Pattern, str | Callable[[re.Match], str]]] = [  # (pattern, replacement), in this order
    (r"\s+", " "),
    (r"^[ ,:*`\"]+|[ ,:*`\"]+$", ""),
    (r"\\dot\s*\{?(\d)\}?\s*\\dot\s*\{?(\d)\}?", r"\\overline{\1\2}"),
    (r"(?<=\d)\s*(?:\\[,; ]\s*)?\\Omega(?![a-z])", " «Ω»"),
    (r"\\mu\s*\\(?:text|mathrm)\s*\{", r"\\text{μ"),
    (r"^(?:USD|US\s*\\?\$)\s*(?=\d)", r"\\$"),
    (r"\\pmod\s*\{?\s*(\d+)\s*\}?|(?:\\text\s*\{)?\s*\(\s*mod\s*(\d+)\s*\)\s*\}?",
     lambda m: rf" \pmod{{{m[1] or m[2]}}}"),
    (r"^\\(?:bf|rm|it|sf|tt)(?![a-z])\s*", ""),
    (r"^([^{}\\]+)\\over\s*([^{}\\]+)$", r"\\frac{\1}{\2}"),
    (r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{\\?([^{}\\]*)\}", r"\1 «\2»"),
    (r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))", repeating),
    (r"(?<![\w.])(\d*)\.()\((\d+)\)()(?!\w)", repeating),
    (r",\s*\\!\s*|\s*\{\s*,\s*\}|(?<=\d)'(?=\d{3})", ","),
    (r"(?<!\\)(?:\\[()\[\]]|\$+)|\\[lr]brace(?![a-z])", " "),
    (r"(?<![A-Za-z\\])(sqrt|pi|infty|infinity)(?![A-Za-z])", r"\\\1 "),
    (r"\\not\s*=", "≠"),
    (r"\\([a-z]+)(?![a-z])|<=|>=|(?<![\d)}])!=", lambda m: _COMMANDS.get(m[1] or m[0], m[0])),
    (LEFT, ""),
    (rf"{SPACING}|\\quad(?=[a-z])|\\(?:hfill|left|right|limits|checkmark|blacksquare|square|Box|(?:phantom|"
    rf"[hv]space\*?)"
     r"\s*\{[^{}]*\}|tiny|small|large|Large|LARGE|huge|Huge|bfseries|normalsize)(?![a-z])", " "),
    (r"\{\s*\\(?:bf|it|rm|bfseries|large|Large|color\s*\{[^{}]*\})\s+([^{}]*)\}", r"\1"),
    (r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}", r"\\binom{\1}{\2}"),
    (r"\{\s*([^{}\\]+)\s*\\over\s*([^{}\\]+)\s*\}", r"\\frac{\1}{\2}"),
    (r"(^|\\in)\s*\\mathbb\s*\{?R\}?\s*$", r"\1(-\\infty,\\infty)"),
    (r"\\(?:math(?:bb|cal)|vec)\s*\{([A-Za-z]{1,3})\}", r"\1"),
    (r"\\overline\s*\{([A-Za-z]{2,3})\}", r"\1"),  # of one letter it is a conjugate or a mean
    (_PLAIN + _GROUP, r"\1"),
    (_PLAIN + _GROUP, r"\1"),
    (r"\\color\s*\{[^{}]*\}", " "),
    (_TEXT, _text_group),
    (r"\\([$€£¥₹])\s*(\d[\d,.]*\d|\d)(?:[«\s]*(\w+illion|thousand|hundred)[\s»]*)?", r"\2 \3 «\1» "),
    (r"^\s*([€£¥₹])\s*(\d[\d,.]*\d|\d)", r"\2 «\1» "),
    (r"\\([€£¥₹])", r" «\1» "),
    (r"\\(?:\$|(?:boxed|fbox)\s*(?=\{))", ""),
    (r"(?i)^[«\s]*(?:(?:the )?(?:final )?answer(?: is|:)|rs\.?(?= ?\d))[\s»:]*", ""),
    (r"(?i)[«,\s]*(?:\bor )?\b(?:approximately|approx\.)[\s»]*", r" \\approx "),
    (r"(?<=\d)[«\s]+to[\s»]+(?=\d)", ":"),
    (r"(?i)^[«\s]*(?:the set of )?all real(?: number)?s?(?: \w)?[\s».]*$", r"(-\\infty,\\infty)"),
    (r"(?i)^[«\s]*(?:(?:there (?:are|is) )?no (?:real )?solutions?(?: exists?)?|none|(?:the )?empty set|"
    r"\\\{\s*\\\})[\s».]*$",
     r"\\emptyset"),
    (r"\^\s*\{?\s*(?:\\circ|°)\s*\}?", "°"),
    (r"\^\s*\{\s*('{1,2})\s*\}", r"\1"),
    (r"\^\s*\{?\s*«?\s*(?:th|st|nd|rd)\s*»?\s*\}?|(?:(?<=[04-9])th|(?<=1[123])th|"
     r"(?<!11)(?<=1)st|(?<!12)(?<=2)nd|(?<!13)(?<=3)rd)\b", ""),
    (r"\\?%|«?\s*\b(?:percent(?:age)?|pct)\b\s*»?", "%"),
    (r"^\\\{\s*[a-z]\s*(?:\\in\s*(?:R|\\mathbb\s*R)\s*)?(?:\||:)\s*([^{}]*)\\\}$", r"\1"),
    (r"(^\s*|\\cup\s*)\](?=[^\[\]]*\[)", r"\1("),
    (r"(?<=[\d}y])\s*\[(?=\s*$|\s*\\cup)", ")"),
    (r"(?<=\d) ?x ?(?=10 ?\^)", r"\\times "),
    (r"(?<=\d)[eE]([+-]?\d{1,3})(?![\w.])", r"\\times 10^{\1}"),
    (r"(?<=[\w)}])\*\*(?=[\w({-])", "^"),
    (r"(?<=[A-Z][a-z][a-z])([a-z]{0,6}\.? \d{1,2}), ?(?=\d{4}\b)", r"\1 "),
    (r"(?i)(?<=\d)\s*«?\s*([ap])\.?m\b\.?\s*»?", lambda m: f"{m[1].lower()}m"),
    (r"^\s*0(?=\d:\d\d)|(?<=\d):00(?=[ap]m)", ""),
    (r"^\s+|\s+$", ""),
    (r"«\s*(thousand|million|billion|trillion)\s+([^«»]+)»", r"\1 «\2»"),
    (r"(?i)^[«\s]*(?:negative|minus) (?=\w)", "-"),
    (r"^(\d[\d,]*(?:\.\d+)?)[ «]*hundred[ »]*$", lambda m: str(Fraction(*decimal(m[1])) * 100)),
    (_SPELT_PART, lambda m: f"{_VALUES[m[1].lower()]}/{_PARTS[m[2].lower().removesuffix('s')]}"),
    (_SPELT, _spelt),
    (r"\b((?:hour|minute|year|month|week|day|dollar)s?|feet)»?,?\s+«?\s*(?:and\b\s*)?»?\s*(?=\d)", r"\1 "),
    (r"√\s*((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\w)?", lambda m: rf"\sqrt{{{m[1]}}}" if m[1] else r"\sqrt"),
    (r"\s+", " "),
]
_AND_OR = re.compile(
    r"[«\s]*+,?\s*+(?:(?<![\\\w])(?:(and)|or)\b|(?:(\\(?:land|wedge))|\\(?:lor|vee))(?![a-z]))[»\s]*")
_REWRITINGS = [(re.compile(pattern), replacement) for pattern, replacement in _RULES]
_RAISED = re.compile("[⁰¹²³⁴-⁹⁻]+")
_LOWERED = re.compile("[₀-₉]+")
_FRACTION = re.compile("[½¼¾⅐-⅞]")


def _ascii(s: str) -> str:
    """Unicode signs as LaTeX: raised and lowered digits, fractions, Greek, full width."""
    s = _INVISIBLE.sub("", s)
    s = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0]).replace('−', '-')}}}", s)
    s = _LOWERED.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", s)
    s = _FRACTION.sub(lambda m: f"\\frac{{{unicodedata.normalize('NFKC', m[0]).replace('⁄', '}{')}}}", s)
    return "".join(_UNICODE[c] if c in _UNICODE else _UNICODE.get(n := unicodedata.normalize("NFKC", c), n) for c in s)


def _and_or(s: str) -> str:
    """A comma for "and" and "or" between the parts of a list; between two inequalities the words stay apart, as \\land
    and \\lor, and so does a \\land between statements."""
    done, at = [], 0
    found = list(_AND_OR.finditer(s))
    ends = [*(m.start() for m in found[1:]), len(s)]
    for mark, end in zip(found, ends, strict=False):
        before, after = re.split("[,;]", s[at : mark.start()])[-1], re.split("[,;]", s[mark.end() : end])[0]
        both = bool(mark[1] or mark[2])
        bounds = all(re.search("[<>≤≥]", part) for part in (before, after))
        apart = bounds or (mark[2] and "=" not in before + after)
        done += [s[at : mark.start()], f" \\{'land' if both else 'lor'} " if apart else ","]
        at = mark.end()
    return "".join([*done, s[at:]])


def clean(text: str) -> str:
    """The answer without its dressing; what stood in \\text{} is between « and »."""
    s = text if text.isascii() else _ascii(text.translate(_OURS))
    if "\\begin" not in s:
        s = re.sub(r"\\\\(?=[A-Za-z(\[{])", r"\\", s)  # doubly escaped text
    for pattern, replacement in _REWRITINGS:
        s = pattern.sub(replacement, s)
    s = re.sub(r"\s+", " ", _and_or(s))
    head, mark, tail = s.partition("\\approx")
    if mark:  # "x \approx 11" states 11; "1/3 \approx 0.33" states 1/3
        s = tail if re.fullmatch(r"\s*[A-Za-z]?\s*", head) else head
    s = s.lstrip(" ,:*`")
    s = s if s.endswith("..") else s.rstrip(" .,:*`")
    while s[:1] == "{" and closes(s) == len(s) - 1:
        s = s[1:-1].strip().rstrip(" .,:")
    while s[:1] == "«" and s.find("»") == len(s) - 1 and s.find("«", 1) < 0:
        s = s[1:-1].strip().rstrip(" .,:")
    return s


def closes(s: str) -> int:
    """Where the bracket that opens `s` closes, or -1. Bracket kinds may mix: [0,1)."""
    depth = 0
    for mark in re.finditer(r"[(\[{]|[)\]}]", s):
        depth += 1 if mark[0] in "([{" else -1
        if depth == 0:
            return mark.start()
    return -1
