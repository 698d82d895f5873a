"""What an answer is made of: one thing, a list, a set, a tuple or an interval, a matrix, a union.

Text only. The comparison (`compare`) takes the parts and compares them one by one.
"""

import re
from typing import NamedTuple

from phi_lab.verify.clean import closes

RELATIONS = r"[=<>≤≥≠]|\\in(?![a-z])|\\equiv(?![a-z])"
_MATRIX = re.compile(
    r"(?:[(\[]|\\\{)?\s*\\begin\{([pbB]?matrix|array|cases)\}(?:\{[lcr|]+\})?(.*)\\end\{\1\}\s*[)\]]?", re.DOTALL
)
_BARE = re.compile(  # a name that a value can be given to
    r"(?:(?:m\s*)?\\(?:angle|triangle)\s*)?"
    r"(?:\\?[A-Za-z](?![a-z])|[A-Z]{2,4}|[a-zA-Z]{4,}|\|[A-Z]{2}\||\[[A-Z]{3,4}\]|\\[a-z]{2,9}|\\(?:vec|hat|bar|overline|mathbf|mathcal)"
    r"\s*\{?\s*[A-Za-z]{1,2}\s*\}?)"
    r"'{0,3}(?:_(?:\{[^{}=]{1,20}\}|\w))?'{0,3}(?:\^\s*\{?-1\}?)?(?:\s*\([A-Za-z0-9, _=]{1,12}\))?"
)
_WORDS = re.compile(r"«[^«»]*»|[A-Za-z]{4,}(?: [A-Za-z]{2,}){0,5}")
_NO_NAME = {"\\" + name for name in
            "sin cos tan cot sec csc arcsin arccos arctan ln log lg exp sqrt frac binom sum prod int lim gcd max min "
            "pi infty text begin end circ cdot times pm mp not neg notin".split()}
_EXPONENT = re.compile(r"\^\s*(?:\d|\{\d\})")
_QUANTITY = re.compile(r"(?:[A-Za-z]|[ +{}|/-]|\\(?:frac|cdot|angle|overline)(?![a-z]))+")


class Shape(NamedTuple):
    """`kind`: one, list, and, set, union, matrix, or the two brackets of a tuple or an interval; `items`: its parts
    (rows of cells for a matrix)."""

    kind: str
    items: list


def split(s: str, pattern: str) -> tuple[list[str], list[str]]:
    """The parts of a text between the matches of a pattern that stand outside all brackets, and those matches."""
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


def shape(s: str) -> Shape:
    """What a cleaned answer is made of."""
    while (
        s[:2] in ("((", "( (")
        and s[-1:] == ")"
        and closes(s) == len(s) - 1
        and closes(s[1:].lstrip()) == len(s[1:].lstrip()) - 2
    ):
        s = s[1:-1].strip()
    if point := re.fullmatch(r"[ABD-OQ-Z]'?\s*(\(.*,.*\))", s):
        s = point[1] if closes(point[1]) == len(point[1]) - 1 else s
    matrix = _MATRIX.fullmatch(s)
    if matrix and "\\begin" not in matrix[2]:
        rows = [[c.strip() for c in r.split("&")] for r in matrix[2].split("\\\\") if r.strip()]
        system = matrix[1] == "cases" or (s[:2] == "\\{" and all(split(row[0], RELATIONS)[1] for row in rows))
        if system and all(len(row) == 1 for row in rows):
            return Shape("list", [row[0].rstrip(",") for row in rows])
        return Shape("matrix", rows)
    if s[:2] == "\\{" and s[-2:] == "\\}" and closes(s[1:]) == len(s) - 2:
        items = plus_minus(split(s[2:-2], "[,;]")[0])
        return Shape("set", items) if len(items) != 1 or "emptyset" in s else Shape("one", items)
    if len(union := split(s, r"\\cup(?![a-z])")[0]) > 1:
        return Shape("union", union)
    if ";" in s and (groups := [_assigned(group) for group in split(s, ";")[0]]) and all(groups):
        return Shape("list", groups)
    if len(parts := plus_minus(split(s, r"[,;]|\\lor(?![a-z])")[0])) > 1:
        return Shape("list", parts)
    if len(parts := split(s, r"\\land(?![a-z])")[0]) > 1:
        return Shape("and", parts)
    if s[:1] and s[0] in "([" and s[-1] in ")]" and closes(s) == len(s) - 1:
        inner = [p for p in split(s[1:-1], "[,;]")[0] if p]
        if len(inner) > 1:
            return Shape(s[0] + s[-1], inner)
    return Shape("one", [s])


def _assigned(group: str) -> str | None:
    """x=1,y=2 as the tuple (1,2); None for anything but assignments to two or more letters."""
    parts = split(group, ",")[0]
    values = [m[1] for part in parts if (m := re.fullmatch(r"\s*[A-Za-z]\s*=(.+)", part))]
    return f"({','.join(values)})" if len(values) == len(parts) > 1 else None


def plus_minus(parts: list[str]) -> list[str]:
    """Every item with each of its signs; two ± in one item are independent, ± and ∓ are not. Repeats stay."""
    done, pattern = [], re.compile(r"\\(pm|mp)(?![a-zA-Z]{2})")
    for part in filter(None, parts):
        found = [m[1] for m in pattern.finditer(part)]
        if not found or len(found) > 3:
            done.append(part)
        elif "mp" in found:
            for upper, lower in ("+-", "-+"):
                done.append(re.sub(r"\\mp(?![a-zA-Z]{2})", lower, re.sub(r"\\pm(?![a-zA-Z]{2})", upper, part)))
        else:
            done += plus_minus([pattern.sub(sign, part, count=1) for sign in "+-"])
    return done


def bare_name(s: str) -> bool:
    """Is a text only a name: x, x_1, f(x), \\angle ABC, AB, (x,y), A:B, or words?"""
    s = s.strip()
    if _WORDS.fullmatch(s):
        return True
    inner = re.fullmatch(r"[({]\s*([A-Za-z](?:_\d)?(?:\s*,\s*[A-Za-z](?:_\d)?){1,3})\s*[)}]", s)
    if inner:
        return True
    parts = [part.strip() for part in s.split(":")]
    commands = [command[0] for part in parts if (command := re.match(r"\\[a-z]+", part))]
    return all(map(_BARE.fullmatch, parts)) and not _NO_NAME.intersection(commands)


def quantity(s: str) -> bool:
    """Is a text a sum, product or quotient of letters, which has a value but sets no equation: a^2+b^2, AB/CD?"""
    plain = _EXPONENT.sub("", s.strip())
    return bool(_QUANTITY.fullmatch(plain)) and not re.search(r"(?<!\\)\b[a-z]{3}", plain)


def interval(parts: list[str], marks: list[str]) -> str | None:
    """k<-5 as (-\\infty,-5), 0<x≤3 as (0,3], x≠4 as a union; None unless it bounds a bare name."""
    if marks == ["≠"] and bare_name(parts[0]):
        return f"(-\\infty,{parts[1]})\\cup({parts[1]},\\infty)"
    if len(marks) > 2 or not (set(marks) <= set("<≤") or set(marks) <= set(">≥")):
        return None
    if marks[0] in ">≥":
        parts, marks = parts[::-1], ["<≤"[m == "≥"] for m in marks[::-1]]
    if (size := _absolute(parts, marks)) is not None:
        return size
    if len(parts) == 2:
        named = [bare_name(part) for part in parts]
        if named.count(True) != 1 or not all(parts):
            return None
        bound = parts[1] if named[0] else parts[0]
        return f"(-\\infty,{bound}{')]'[marks[0] == '≤']}" if named[0] else f"{'(['[marks[0] == '≤']}{bound},\\infty)"
    if not bare_name(parts[1]) or bare_name(parts[0]) or bare_name(parts[2]) or not all(parts):
        return None
    return "(["[marks[0] == "≤"] + f"{parts[0]},{parts[2]}" + ")]"[marks[1] == "≤"]


def between(items: list[str]) -> str | None:
    """x>1 and x≤2 as 1<x≤2; None unless the two bound one bare name from both sides."""
    bounds = {}
    for item in items:
        parts, marks = split(item, RELATIONS)
        if len(marks) != 1 or marks[0] not in "<≤>≥" or not all(parts):
            return None
        if bare_name(parts[1]) and not bare_name(parts[0]):
            parts, marks = parts[::-1], ["<≤>≥"[">≥<≤".index(marks[0])]]
        if bare_name(parts[0]):
            bounds["low" if marks[0] in ">≥" else "high"] = parts[0], "<≤"[marks[0] in "≤≥"], parts[1]
    if len(items) != 2 or len(bounds) != 2 or bounds["low"][0] != bounds["high"][0]:
        return None
    (name, low, bottom), (_, high, top) = bounds["low"], bounds["high"]
    return f"{bottom}{low}{name}{high}{top}"


def _absolute(parts: list[str], marks: list[str]) -> str | None:
    """|x|<3 as (-3,3), 1≤|x| as two rays, 1≤|x|<3 as two intervals; None where there is no absolute value."""
    at = next((i for i, part in enumerate(parts) if re.fullmatch(r"\|\s*[A-Za-z]\s*\|", part)), None)
    if at is None or (len(parts) == 3 and at != 1):
        return None
    low = (parts[0], marks[0] == "≤") if at else None
    high = (parts[-1], marks[-1] == "≤") if at < len(parts) - 1 else None
    if low is None and high is not None:
        return f"{'(['[high[1]]}-({high[0]}),{high[0]}{')]'[high[1]]}"
    if low is None or high is None:
        assert low is not None
        return f"(-\\infty,-({low[0]}){')]'[low[1]]}\\cup{'(['[low[1]]}{low[0]},\\infty)"
    inner = f"{'(['[low[1]]}{low[0]},{high[0]}{')]'[high[1]]}"
    return f"{'(['[high[1]]}-({high[0]}),-({low[0]}){')]'[low[1]]}\\cup{inner}"
