"""Are two answers the same mathematical answer? Runs in the verifier's worker process only.

An answer is taken apart as text (lists, tuples, intervals, matrices, equations, units) down to its
leaves. Leaves that are numbers are compared as exact fractions; only the others go to a parser
(`verify_value`).

Deviations from math-verify: a decimal equals a fraction only exactly (0.333 is not 1/3), a
percentage is a number with a unit (50% is 50, not 1/2), a word is a word (`east` is not `seat`), a
base subscript counts, and variables keep their case.
"""

import re

from phi_lab.verify_text import UNIT, clean, closes, number, same_number
from phi_lab.verify_value import same_value

_TRAILING_UNIT = re.compile(
    rf"(?<=[\d}})%])\s*(?:\s*/?\s*«[^»]*»(?:\s*\^\s*\{{?\d\}}?)?)+$"
    rf"|(?<=[\d}})])\s*(?:{UNIT})(?: per \w+)?(?:\s*\^\s*\{{?\d\}}?)?$"
)
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
    if number(s):
        return "one", s
    matrix = re.fullmatch(
        r"[(\[]?\s*\\begin\{(\w*matrix|array)\}(?:\{\w+\})?(.*)\\end\{\1\}\s*[)\]]?", s
    )
    if matrix and "\\begin" not in matrix[2]:
        rows = [r.split("&") for r in matrix[2].split("\\\\") if r.strip()]
        return "matrix", [[c.strip() for c in r] for r in rows]
    if s[:2] == "\\{" and s[-2:] == "\\}" and closes(s[1:]) == len(s) - 2:
        return "list", _plus_minus(_split(s[2:-2], ",")[0])
    union = _split(s, r"\\cup(?![a-z])")[0]
    if len(union) > 1:
        return "union", union
    parts = _plus_minus(_split(s, ",")[0])
    if len(parts) > 1:
        return "list", parts
    if s[:1] and s[0] in "([" and s[-1] in ")]" and closes(s) == len(s) - 1:
        inner = [p for p in _split(s[1:-1], ",")[0] if p]
        if len(inner) > 1:
            return s[0] + s[-1], inner
    return "one", s


def _plus_minus(parts):
    out = []
    for part in filter(None, parts):
        if re.search(r"\\pm(?=[^a-zA-Z]|[a-z]$)", part):
            out += [re.sub(r"\\pm", sign, part) for sign in "+-"]
        else:
            out.append(part)
    return list({re.sub(r"\s", "", part): part for part in out}.values())


# ---- Comparison ---------------------------------------------------------------------------------


def compare(a, b):
    """Are two answers the same? True, False, or None where one of them cannot be read."""
    return _same(clean(a), clean(b))


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
        left, right = sum(left, []), sum(right, [])
        return _all(_same(p, q) for p, q in zip(left, right, strict=True))
    for one, many, spelt in ((a, other, right), (b, kind, left)):
        relation, marks = _split(one, r"[=<>≤≥≠]|\\in(?![a-z])")
        if many == "list" or not marks:
            continue
        if marks[-1] in ("=", "\\in"):
            return _same(relation[-1], b if one is a else a)
        if many[0] in "([" and len(spelt) == 2:
            low_high = _interval(relation, marks)
            return low_high and _same(low_high, b if one is a else a)
    loose = {kind, other}
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
    for result in results:
        if not result:
            return result
    return True


def _interval(parts, marks):
    """k<-5 as (-\\infty,-5); 0<x≤3 as (0,3]; None where it is not such an inequality."""
    if any(m not in "<>≤≥" for m in marks) or len(marks) > 2:
        return None
    if marks[0] in ">≥":
        parts, marks = parts[::-1], [{">": "<", "≥": "≤"}.get(m, "") for m in marks[::-1]]
    if any(m not in ("<", "≤") for m in marks):
        return None
    if len(parts) == 2:
        infinite = "-\\infty" if re.search(r"\d|infty", parts[1]) else "\\infty"
        if infinite[0] == "-":
            parts, marks = [infinite, *parts], ["<", *marks]
        else:
            parts, marks = [*parts, infinite], [*marks, "<"]
    return "(["[marks[0] == "≤"] + f"{parts[0]},{parts[2]}" + ")]"[marks[1] == "≤"]


def _bare(s):
    """A leaf without its unit, its « » and the brackets around it."""
    if ":" not in s:
        s = _TRAILING_UNIT.sub("", s)
    s = re.sub("[«»]", " ", s).lstrip().rstrip(" .")
    while s[:1] in ("(", "{") and closes(s) == len(s) - 1:
        s = s[1:-1].strip()
    return s[:-1] if s[-1:] == "%" and number(s[:-1]) else s


def _words(s):
    letters = re.sub(r"\\[a-zA-Z]+", " ", s)
    return [w for w in re.findall(r"[^\W\d_]{3,}", letters) if w not in _FUNCTIONS]


def _same_one(a, b):
    a, b = _bare(a), _bare(b)
    parts, marks = _split(a, r"[=<>≤≥≠]|\\in(?![a-z])")
    others, signs = _split(b, r"[=<>≤≥≠]|\\in(?![a-z])")
    if marks and signs:
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
    flat, other = (re.sub(r"\s+", "", s) for s in (a, b))
    if flat == other:
        return not re.search(r"\d\s+\d", a + b)
    if len(flat) == len(other) == 1:  # a choice letter may be small, a variable may not
        return flat.casefold() == other.casefold() and flat.casefold() in "abcdefghij"
    if _words(a) or _words(b):
        flat, other = (re.sub(r"[.,\"]|\\(?![a-z])", "", s).casefold() for s in (flat, other))
        return flat == other
    if ":" in a + b or re.search(r"[_?]", a + b) and (x or y):
        return False  # times and ratios are compared as they are written
    return same_value(a, b)


def _same_relation(parts, marks, others, signs):
    if set(marks) | set(signs) <= {"=", "\\in"}:
        left, right = (parts[0], parts[-1]), (others[0], others[-1])
        if left[0].replace(" ", "") == right[0].replace(" ", ""):
            return _same(left[1], right[1])
        if re.fullmatch(r"[A-Za-z]", left[0]) and re.fullmatch(r"[A-Za-z]", right[0]):
            if not re.search(r"[A-Za-z]", left[1] + right[1]):
                return False  # x = 1 is not y = 1
        return same_value(left, right, 0)
    flip = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
    if len(marks) != len(signs):
        return False
    if len(marks) == 1:
        if signs == marks:
            return same_value(parts, others, 1)
        if signs[0] == flip.get(marks[0]):
            return same_value(parts, others, -1)
        return False
    if [flip.get(m, m) for m in marks[::-1]] == signs:
        parts, marks = parts[::-1], signs
    return marks == signs and _all(_same(p, q) for p, q in zip(parts, others, strict=True))
