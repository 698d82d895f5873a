"""Units: 8 kJ is 8000 J and not 8 J, and what is not known as a unit is compared as it is written.

A closed table of units with their factors and dimensions, SI prefixes included. (The library `pint` knows far more
units, but reads them with a parser of its own that takes any text, and the words behind an answer are mostly counted
things: `12 apples` needs a rule that no unit library has.)
"""

import re
from dataclasses import dataclass
from fractions import Fraction

PREFIXES = {"k": 3, "M": 6, "G": 9, "T": 12, "m": -3, "c": -2, "d": -1, "u": -6, "µ": -6, "μ": -6, "n": -9, "h": 2}
LONG_PREFIXES = {"kilo": 3, "mega": 6, "giga": 9, "centi": -2, "milli": -3, "micro": -6, "nano": -9, "deci": -1}
# symbol: (factor, dimensions, names); prefixed ones first
SI = {
    "m": ("1", "m", "meter metre"), "g": ("1/1000", "kg", "gram gramme"), "s": ("1", "s", "second sec"),
    "L": ("1/1000", "m3", "liter litre"), "l": ("1/1000", "m3", ""), "N": ("1", "kg m s-2", "newton"),
    "J": ("1", "kg m2 s-2", "joule"), "W": ("1", "kg m2 s-3", "watt"), "Pa": ("1", "kg m-1 s-2", "pascal"),
    "Hz": ("1", "s-1", "hertz"), "V": ("1", "kg m2 s-3 A-1", "volt"), "A": ("1", "A", "ampere amp"),
    "Wh": ("3600", "kg m2 s-2", "watthour"), "mol": ("1", "mol", "mole"), "cal": ("4.184", "kg m2 s-2", "calorie"),
    "B": ("8", "bit", "byte"), "eV": ("1", "eV", "electronvolt"), "C": ("1", "A s", "coulomb"),
    "F": ("1", "A2 s4 kg-1 m-2", "farad"), "T": ("1", "kg s-2 A-1", "tesla"), "K": ("1", "K", "kelvin"),
    "Ω": ("1", "kg m2 s-3 A-2", "ohm"),
}
OTHERS = """in 0.0254 m inch inche; ft 0.3048 m foot feet; yd 0.9144 m yard; mi 1609.344 m mile; lb 0.45359237 kg
pound lbs; oz 0.028349523125 kg ounce; t 1000 kg ton tonne; min 60 s minute mins; h 3600 s hour hr hrs; day 86400 s
d; week 604800 s wk; month 1 month mo; year 1 year yr yrs; ° 1 deg degree deg; rad 1 rad radian; ' 1/60 deg
arcminute; '' 1/3600 deg arcsecond; °C 1 degC celsius; °F 1 degF fahrenheit; % 1 percent percent pct; $ 1 usd dollar
usd buck; ¢ 1/100 usd cent; € 1 eur euro eur; £ 1 gbp gbp; ¥ 1 jpy yen jpy; ₹ 1 inr rupee inr rs; gal 1 gal gallon;
qt 1/4 gal quart; pt 1/8 gal pint; cup 1/16 gal cup; bit 1 bit bit; acre 1 acre acre; ha 10000 m2 hectare; unit 1 1
unit; mph 1397/3125 m,s-1 mph; rpm 1/60 s-1 rpm; atm 101325 kg,m-1,s-2 atmosphere; bar 100000 kg,m-1,s-2 bar"""
SINGLE = set("mgslLNJWVAKhCFTBd")  # letters that are a unit only where the other side has one, or in a quotient
MODIFIERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
CHANGING = set(  # words behind a number that change it, or say that it is not sure
    """times plus minus divided multiplied multiply over by raised power powers hundred thousand million billion
    trillion half dozen halves third thirds quarter quarters fourth fourths fifth fifths percent percentage double
    triple twice less fewer greater than mod modulo root negative factorial squared cubed base binary out ratio in
    to if or maybe perhaps possibly probably approximately approx about around roughly nearly almost at least most
    up between either unless except not no never without and but else when where for nor neither both depending
    rounded guess say unsure wrong incorrect tens hundreds thousands score gross pairs pair choose permute among
    unknown below above under inverse one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety zero
    dozens sixths sevenths eighths ninths tenths add subtract increased decreased reciprocal log sqrt sin cos tan
    infinity infinite crore crores lakh lakhs myriad doubled tripled quadruple quadrupled halved false untrue""".split()
)
_STEMS = """four fif six seven eigh nin ten eleven twelf thirteen fourteen fifteen sixteen seventeen eighteen nineteen
    twentie thirtie fortie fiftie sixtie seventie eightie ninetie hundred thousand million billion trillion"""
CHANGING |= {stem + end for stem in _STEMS.split() for end in ("th", "ths")}
CHANGING |= {stem + end for stem in "m b tr quadr quint sext sept oct non dec".split() for end in ("illion", "illions")}


@dataclass(frozen=True)
class Unit:
    """A unit, or words taken as one: `dimensions` is None where they are not in the table."""

    text: str
    factor: Fraction = Fraction(1)
    dimensions: tuple[tuple[str, int], ...] | None = None


def _dimensions(text: str) -> dict[str, int]:
    if text == "1":
        return {}
    parts = re.findall(r"([A-Za-z]+)(-?\d)?", text)
    return {name: int(power or 1) for name, power in parts}


def _table() -> dict[str, tuple[Fraction, dict[str, int]]]:
    table: dict[str, tuple[Fraction, dict[str, int]]] = {}
    for symbol, (factor, dimensions, names) in SI.items():
        value = Fraction(factor), _dimensions(dimensions)
        for prefix, power in {"": 0, **PREFIXES}.items():
            scaled = value[0] * Fraction(10) ** power, value[1]
            table.setdefault(prefix + symbol, scaled)
        for name in names.split():
            for prefix, power in {"": 0, **LONG_PREFIXES}.items():
                table[prefix + name] = value[0] * Fraction(10) ** power, value[1]
    for line in OTHERS.split(";"):
        symbol, factor, dimensions, *others = line.split()
        for name in (symbol, *others):
            table[name] = Fraction(factor), _dimensions(dimensions)
    return table


_TABLE = _table()
_PIECE = re.compile(
    r"\s*(?:(?P<slash>/|\bper\b|\ban?\b(?=\s+[a-z]{3}))|(?P<name>°\s?[CF]\b|[A-Za-zµμΩ]+|[°%$¢€£¥₹]|''?)\.?"
    r"(?P<power>\s*\^\s*\{?\s*-?\d\s*\}?|(?<=[a-z])[23](?!\d))?|\\cdot|[·*.,])"
)


def known(name: str) -> tuple[Fraction, dict[str, int]] | None:
    """The factor and the dimensions of one unit's name or sign; None where it is not in the table."""
    name = name.replace(" ", "")
    lower = name.lower()
    for candidate in (name, lower if len(name) > 2 else name, lower.removesuffix("s") if len(name) > 3 else name):
        if candidate in _TABLE:
            return _TABLE[candidate]
    return None


def read(text: str) -> Unit | None:
    """The unit that some text states; its dimensions are None if it is not in the table, None for no text."""
    text = re.sub(r"[«»]|\\[,;: ]|\\mathrm|\\text", " ", text).strip(" .")
    if not text:
        return None
    text = re.sub(r"(?i)(?:degrees?|°)\s*(celsius|fahrenheit|[CF]\b)", lambda m: "°" + m[1][0].upper(), text)
    plain = " ".join(text.lower().split())
    at, sign, modifier, factor = 0, 1, 1, Fraction(1)
    total: dict[str, int] = {}
    while at < len(text):
        piece = _PIECE.match(text, at)
        if not piece or piece.end() == at:
            return Unit(plain)
        at = piece.end()
        if piece["slash"]:
            sign = -1
            continue
        if piece["name"] is None:
            continue
        word = piece["name"]
        if word.lower() in MODIFIERS:
            modifier = MODIFIERS[word.lower()]
            continue
        if word.lower() in ("squared", "cubed") and total:
            return Unit(plain)
        found = known(word)
        if found is None:
            return Unit(plain)
        if piece["power"] and not word[0].isalpha():
            return Unit(plain)  # of a per cent or a dollar
        power = int(re.sub(r"[^\d-]", "", piece["power"])) if piece["power"] else 1
        power, modifier = power * modifier * sign, 1
        factor *= found[0] ** power
        for name, count in found[1].items():
            total[name] = total.get(name, 0) + count * power
    return Unit(plain, factor, tuple(sorted((n, c) for n, c in total.items() if c)))


def changes_the_number(words: str) -> bool:
    """Do the words behind a number make it another one, or leave it open: factorial, hundred, or, if, at least?"""
    found = re.findall(r"[^\W\d_]+", words.lower())
    return any(word in CHANGING for word in found) or bool(
        re.search(r"\d|[?!=<>≤≥±+]", re.sub(r"\^\s*\{?-?\d\}?", "", words))
    )


def compatible(a: Unit | None, b: Unit | None) -> Fraction | None:
    """The factor that turns a number with unit `a` into one with unit `b`; None where they do not go together."""
    if a is None or b is None:
        return Fraction(1)
    if a.dimensions is None or b.dimensions is None:
        return Fraction(1) if a.text == b.text or a.text.rstrip("s") == b.text.rstrip("s") else None
    if not a.dimensions or not b.dimensions:  # "units"
        return Fraction(1) if a.factor == b.factor else None
    return a.factor / b.factor if a.dimensions == b.dimensions else None
