"""Are two answers the same mathematical answer? Runs in the verifier's worker process only.

An answer is taken apart as text (lists, tuples, intervals, matrices, equations, units) down to its
leaves. Leaves that are numbers are compared as exact fractions; only the others go to a parser
(`verify_value`).

Deviations from math-verify: a decimal equals a fraction only exactly (0.333 is not 1/3), a
percentage is a number with a unit (50% is 50, not 1/2), a word is a word (`east` is not `seat`), a
base subscript counts, and variables keep their case.
"""

import re

from phi_lab.verify.text import clean, closes, number, same_number
from phi_lab.verify.value import same_value

_UNITS = """km kilometer kilometre; cm centimeter centimetre; mm millimeter millimetre; m meter metre; mi mile;
in inch inche; ft foot feet; yd yard; kg kilogram kilo; mg milligram; g gram; lb pound; oz ounce; l liter litre;
ml milliliter millilitre; h hour hr; min minute; s second sec; day; week; month; year yr; $ dollar usd; ¢ cent;
€ euro eur; ° degree; rad radian; mph; unit; pmod mod"""
_SHORT = {name: names.split()[0] for names in _UNITS.split(";") for name in names.split()}
_U = rf"(?:(?:{'|'.join(n for n in sorted(_SHORT, reverse=True) if len(n) > 1)})s?|[°¢])"
_POWER = r"(?:\s*\^\s*\{?\d\}?)?"
_TRAILING_UNIT = re.compile(  # text, or a unit, simple or composed: a single letter only in a quotient
    rf"(?<=[\d}})%°i])\s*(?:\s*/?\s*«[^»]*»{_POWER})+$"
    rf"|(?<=[\d}})i])\s*(?:(?:square|cubic|sq|cu)\.? )?(?:{_U}{_POWER}|[mgl](?= ?/))"
    rf"(?:(?: ?/ ?| per | an? )(?:{_U}|[hsgml]|\w{{3,}}){_POWER})*$"
    r"|(?<=[\d)}])\s*\\pmod\s*\{?\d+\}?$",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"(?<=\d)(?: of)? (?:[a-z]{3,}(?:[ -]|$)){1,4}$", re.IGNORECASE)
_NO_UNIT = re.compile(r"\b(?:hal(?:f|ves)|thirds?|quarters?|\w+th|\w+ths|dozens?|squared|cubed|\w+illions?|not|mod)\b")
_RELATION = r"[=<>≤≥≠]|\\in(?![a-z])"
_LABEL = re.compile(r"^«?\([A-E]\)»? (?=\S)")
_OPTION = re.compile(r"(?:[oO]ption|[cC]hoice)?\s*\(?([A-J])(?:[).:]+(?:\s(?!.*\b[A-J]\b).*)?)?")
_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "gcd", "lcm", "max", "min"}


def _split(s, pattern):
    """Split at the matches of a pattern that stand outside all brackets."""
    parts, marks, depth, start = [], [], 0, 0
    for mark in re.finditer(rf"(?P<o>[(\[{{])|(?P<c>[)\]}}])|{pattern}", s):
        if mark["o"]:
            depth += 1
        elif mark["c"]:
            depth -= 1
        elif depth <= 0:
            parts.append(s[start : mark.start()].strip())
            marks.append(mark[0])
            start = mark.end()
    return [*parts, s[start:].strip()], marks


def _items(s):
    """What an answer is made of: ("one", s), ("list", items), ("matrix", rows), ("union", items),
    or for a tuple or an interval (its two brackets, items)."""
    if number(_unit(s)[0]):
        return "one", s
    matrix = re.fullmatch(r"[(\[]?\s*\\begin\{([a-uw-z]?matrix|array)\}(?:\{\w+\})?(.*)\\end\{\1\}\s*[)\]]?", s)
    if matrix and "\\begin" not in matrix[2]:
        return "matrix", [[c.strip() for c in r.split("&")] for r in matrix[2].split("\\\\") if r.strip()]
    if s[:2] == "\\{" and s[-2:] == "\\}" and closes(s[1:]) == len(s) - 2:
        return "list", _plus_minus(_split(s[2:-2], "[,;]")[0])
    if len(union := _split(s, r"\\cup(?![a-z])")[0]) > 1:
        return "union", union
    if ";" in s and (groups := [_assigned(group) for group in _split(s, ";")[0]]) and all(groups):
        return "list", groups
    if len(parts := _plus_minus(_split(s, "[,;]")[0])) > 1:
        return "list", parts
    if s[:1] and s[0] in "([" and s[-1] in ")]" and closes(s) == len(s) - 1:
        inner = [p for p in _split(s[1:-1], "[,;]")[0] if p]
        if len(inner) > 1:
            return s[0] + s[-1], inner
    return "one", s


def _assigned(group):
    """x=1,y=2 as the tuple (1,2); None for anything but assignments to two or more letters."""
    parts = [re.fullmatch(r"\s*[A-Za-z]\s*=(.+)", part) for part in _split(group, ",")[0]]
    return f"({','.join(part[1] for part in parts)})" if len(parts) > 1 and all(parts) else None


def _plus_minus(parts):
    out = []
    for part in filter(None, parts):
        double = re.search(r"\\pm(?=[^a-zA-Z]|[a-z]$)", part)
        out += [part.replace("\\pm", sign) for sign in "+-"] if double else [part]
    return list({re.sub(r"\s", "", part): part for part in out}.values())


# ---- Comparison ---------------------------------------------------------------------------------


def compare(a, b):
    """Are two answers the same? True, False, or None where one of them cannot be read."""
    a, b = clean(a), clean(b)
    options = [_OPTION.fullmatch(re.sub("[«»]", "", s).strip()) for s in (a, b)]
    if all(options):  # "(A) 12" names the choice A
        return options[0][1] == options[1][1]
    return _same(*(_LABEL.sub("", s) for s in (a, b)))


def _same(a, b):
    if not a or not b:
        return False
    if a == b:
        return True
    x, y = number(a), number(b)
    if x and y:
        return same_number(x, y)
    (kind, left), (other, right) = _items(a), _items(b)
    if kind == other == "one" or (kind != other and "\\begin" in a and "\\begin" in b):
        return _same_one(a, b)
    if kind == other == "matrix":
        if [len(r) for r in left] != [len(r) for r in right]:
            return False
        return _all(_same(p, q) for p, q in zip(sum(left, []), sum(right, []), strict=True))
    for one, its, many, spelt in ((a, kind, other, right), (b, other, kind, left)):
        relation, marks = _split(one, _RELATION)
        if its == "list" or not marks:
            continue
        if marks[-1] in ("=", "\\in"):
            return _same(relation[-1], b if one is a else a)
        if many[0] in "([" and len(spelt) == 2:
            low_high = _interval(relation, marks)
            return low_high and _same(low_high, b if one is a else a)
    loose = {kind, other}
    if loose == {"list", "union"} and all(_split(p, _RELATION)[1] for p in (left if kind == "list" else right)):
        return _match(left, list(right))  # x<1 or x>2 as a union
    if "matrix" in loose or len(left) != len(right):
        return _decimal_comma(a, b) or _decimal_comma(b, a)
    if kind == other and kind not in ("list", "union") or loose == {"list", "()"}:
        return _all(_same(p, q) for p, q in zip(left, right, strict=True))
    return _match(left, list(right)) if kind == other else False


def _decimal_comma(a, b):
    """1,22 for 1.22: believed only beside a number that has a point."""
    if not re.fullmatch(r"-?\d+,\d{1,2}", a) or "." not in b or not number(b):
        return False
    return same_number(number(a.replace(",", ".")), number(b))


def _match(left, right):
    """Each item of one list has its own partner in the other, in any order."""
    unread = False
    for item in left:
        for index, partner in enumerate(right):
            same = _same(item, partner)
            unread = unread or same is None
            if same:
                del right[index]
                break
        else:
            return None if unread else False
    return True


def _all(results):
    """True if all are; False as soon as one is not; None where one could not be read."""
    return next((result for result in results if not result), True)


def _interval(parts, marks):
    """k<-5 as (-\\infty,-5); 0<x≤3 as (0,3]; None where it is not such an inequality."""
    if len(marks) > 2 or not (set(marks) <= set("<≤") or set(marks) <= set(">≥")):
        return None
    if marks[0] in ">≥":
        parts, marks = parts[::-1], ["<≤"[m == "≥"] for m in marks[::-1]]
    if len(parts) == 2 and re.search(r"\d|infty", parts[1]):
        parts, marks = ["-\\infty", *parts], ["<", *marks]
    elif len(parts) == 2:
        parts, marks = [*parts, "\\infty"], [*marks, "<"]
    return "(["[marks[0] == "≤"] + f"{parts[0]},{parts[2]}" + ")]"[marks[1] == "≤"]


def _unit(s):
    """A leaf without its unit, and the unit's short name; "" for none or one that is not known."""
    if ":" in s:
        return s, ""
    match = _TRAILING_UNIT.search(s) or _COUNTED.search(s)
    if not match or _NO_UNIT.search(match[0]) or match.re is _COUNTED and not number(s[: match.start()]):
        return s, ""
    text = re.sub(r"\b(?:per|an?)\b", "/", match[0].lower()).replace("mph", "mi/h")
    text = re.sub(r"\b(square|sq|cubic|cu)\b\.?\s*(\w+)", lambda m: f"{m[2]} {2 if m[1][0] == 's' else 3}", text)
    parts = re.findall(r"[a-z$¢€°]+|/|\d", text)
    parts = [_SHORT.get(part) or _SHORT.get(part.rstrip("s"), part) for part in parts]
    known = all(part in _SHORT and part != "unit" or not part.isalpha() for part in parts)
    return s[: match.start()], "".join(parts) if known else ""


def _bare(s):
    """A leaf without its « » and the brackets around it."""
    s = re.sub("«[$€]»|[«»°]", " ", s).lstrip().rstrip(" .")
    while s[:1] in ("(", "{") and closes(s) == len(s) - 1:
        s = s[1:-1].strip()
    return s[:-1] if s[-1:] == "%" and number(s[:-1]) else s


def _words(s):
    letters = re.sub(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+", " ", s)
    return [w for w in re.findall(r"[^\W\d_]{3,}", letters) if w not in _FUNCTIONS]


def _same_one(a, b):
    if re.sub("[«»° ]", "", a) == re.sub("[«»° ]", "", b) and not re.search(r"\d\s+\d", a + b):
        return True
    (a, unit), (b, other) = _unit(a), _unit(b)
    if unit and other and unit != other:
        return False  # 3 km is not 3 m, and not 3000 m either
    a, b = _bare(a), _bare(b)
    parts, marks = _split(a, _RELATION)
    others, signs = _split(b, _RELATION)
    if marks and signs and (marks[-1] == "\\in") == (signs[-1] == "\\in"):
        return _same_relation(parts, marks, others, signs)
    for side, kinds, whole in ((parts, marks, b), (others, signs, a)):
        if kinds and all(k in ("=", "\\in") for k in kinds):
            # "k = 3" states 3 and "10^3 = 1000" states 1000, but "7 = 11a + c" is an equation
            if re.search("[A-Za-z]", side[0]) or not re.search("[A-Za-z]", side[-1]):
                return _same(side[-1], whole)
    if marks or signs:
        return False
    x, y = number(a), number(b)
    if x and y:
        return same_number(x, y)
    based = [re.fullmatch(r"\(?(\w+?)\)?_\{?(\d+)\}?", s) for s in (a, b)]
    if all(based) and all(m[1].isdigit() for m in based):
        return based[0].groups() == based[1].groups()
    if len(a) == len(b) == 1:  # a choice letter may be small, a variable may not
        return a.casefold() == b.casefold() and a.casefold() in "abcdefghij"
    if _words(a) or _words(b):
        a, b = (re.sub(r"[\s.,\"]|\\(?![a-z])", "", s).casefold() for s in (a, b))
        return a == b
    if re.search(r":|^\d{4}-\d\d-\d\d$", f"{a}\n{b}", re.M) or re.search(r"[\dA-F)]_\{?\d|\?", a + b) and (x or y):
        return False  # times, dates and ratios are compared as they are written
    if re.search(r"^[\d ]+ [\d ]+$", f"{a if not x else ''}\n{b if not y else ''}", re.M):
        return False  # digits with gaps in other places than thousands have
    return same_value(a, b)


def _same_relation(parts, marks, others, signs):
    if set(marks) | set(signs) <= {"=", "\\in"}:
        left, right = (parts[0], parts[-1]), (others[0], others[-1])
        if left[0].replace(" ", "") == right[0].replace(" ", ""):
            return _same(left[1], right[1])
        if len(left[0]) == len(right[0]) == 1 and not re.search(r"[A-Za-z]", left[1] + right[1]):
            return False  # x = 1 is not y = 1
        return same_value(left, right, 0)
    flip = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
    if len(marks) == len(signs) == 1:
        sign = 1 if signs == marks else -1 if signs[0] == flip.get(marks[0]) else None
        return sign is not None and same_value(parts, others, sign)
    if [flip.get(m, m) for m in marks[::-1]] == signs:
        parts, marks = parts[::-1], signs
    return marks == signs and _all(_same(p, q) for p, q in zip(parts, others, strict=True))
