"""Equations and inequalities: the same relation, or the value that one of them states.

A left side is dropped only if it is a bare name (`x=5`, `f(x)=2x`, `\\angle A=40°`): `3x-4y+7=0` is not 0, and
`\\sin x=5/13` is not 5/13. Equations are the same if they are proportional, inequalities if they are by a factor of
the right sign.
"""

import re
from collections.abc import Callable

from phi_lab.verify import value
from phi_lab.verify.latex import parse
from phi_lab.verify.latex_commands import GREEK
from phi_lab.verify.leaves import NOT_READ, Same, bare, squeezed, tokens
from phi_lab.verify.shape import RELATIONS, bare_name, interval, quantity, split
from phi_lab.verify.text import number

_EQUAL = {"=", "\\in"}
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "≠": "≠"}


def compare(same: Callable[[str, str], Same], a: str, g: str) -> Same:
    """Compare two leaves of which one at least is a relation; `same` compares their sides."""
    parts, marks = split(a, RELATIONS)
    others, signs = split(g, RELATIONS)
    if not all(parts[1:]) or not all(others[1:]) or (len(parts) > 2 and not parts[0]):
        return Same(None, "not read: a relation without a side")
    if marks and signs:
        return _both(same, (a, parts, marks), (g, others, signs))
    if marks and set(marks) <= _EQUAL:
        name, said = stated(parts, marks)
        if len(marks) == 1 and number(parts[0]) and not number(said) and _identity(*parts):
            return same(parts[0], g)  # 720 = 10·9·8 says what the product is
        if "!=" in a and not _identity(*parts[-2:]):
            return Same(False, "not read: 5!=6 may be an inequality")
        if bare_name(name) or not name or (quantity(name) and any((number(g) or (0,))[:1]) and number(said)):
            return same(said, g)
        if len(marks) == 1 and number(said) and _identity(name, said):
            return same(said, g)
        return Same(False, "equation against one of its sides")
    if signs and set(signs) <= _EQUAL:
        name, said = stated(others, signs)
        if bare_name(name) or not name:
            return same(a, said)
        return Same(False, "equation against one of its sides")
    return Same(False, "relation")


def _both(same: Callable[[str, str], Same], answer: tuple, gold: tuple) -> Same:
    (a, parts, marks), (g, others, signs) = answer, gold
    if set(marks) | set(signs) <= _EQUAL:
        return _equations(same, stated(parts, marks), stated(others, signs), a, g)
    if len(marks) == 1 and marks[0] in _EQUAL and bare_name(parts[0]):  # x \in [1,\infty) against x ≥ 1
        return same(parts[1], g)
    if len(signs) == 1 and signs[0] in _EQUAL and bare_name(others[0]):
        return same(a, others[1])
    if set(marks) & _EQUAL or set(signs) & _EQUAL or "\\equiv" in marks + signs:
        return Same(tokens(a) == tokens(g), "relation")
    return _inequalities(same, parts, marks, others, signs)


def _equations(
    same: Callable[[str, str], Same], first: tuple[str, str], second: tuple[str, str], a: str, g: str
) -> Same:
    (name, said), (other, wanted) = first, second
    if squeezed(name) == squeezed(other):
        return same(said, wanted)
    letters = [re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?", s.strip()) for s in (name, other)]
    if all(letters) and not re.search(r"[A-Za-z]", said + wanted):
        return Same(False, "name")  # x = 1 is not y = 1
    try:
        left, right = (tuple(parse(bare(side)) for side in sides) for sides in (first, second))
        proportional = value.proportional(left, right)
    except NOT_READ as error:
        return Same(tokens(a) == tokens(g) or None, f"not read: {error}"[:120])
    return Same(proportional, "equation")


def _inequalities(
    same: Callable[[str, str], Same], parts: list[str], marks: list[str], others: list[str], signs: list[str]
) -> Same:
    if not all(parts) or not all(others):
        return Same(None, "relation")
    if len(marks) != len(signs):
        bounds = interval(parts, marks), interval(others, signs)
        return same(bounds[0], bounds[1]) if bounds[0] and bounds[1] else Same(False, "inequality")
    if len(marks) == len(signs) == 1:
        bounds = interval(parts, marks), interval(others, signs)
        if bounds[0] and bounds[1] and not (found := same(bounds[0], bounds[1])).same:
            return found  # also where the two are equal but one bound is left to be worked out
        sign = 1 if signs == marks else -1 if signs[0] == _FLIPPED.get(marks[0]) else None
        if sign is None:
            return Same(False, "inequality")
        try:
            left, right = (tuple(parse(bare(side)) for side in sides) for sides in (parts, others))
            return Same(value.proportional(left, right, 0 if marks == ["≠"] else sign), "inequality")
        except NOT_READ as error:
            return Same(None, f"not read: {error}"[:120])
    if [_FLIPPED.get(m, m) for m in marks[::-1]] == signs:
        parts, marks = parts[::-1], signs
    if marks != signs:
        return Same(False, "inequality")
    failed = next((found for p, q in zip(parts, others, strict=True) if not (found := same(p, q)).same), None)
    return failed or Same(True, "inequality")


def _identity(left: str, right: str) -> bool:
    try:
        return value.same(parse(bare(left)), parse(bare(right))) is True
    except NOT_READ:
        return False


def _arithmetic(s: str) -> bool:
    """Has a text no letters but those of commands that are no letters either?"""
    rest = re.sub(r"\\([a-z]+)(?:\{[a-z]*(?:matrix|array)\})?", lambda m: "x" if m[1] in GREEK else " ", s)
    return not re.search("[A-Za-z«]", rest)


def stated(parts: list[str], marks: list[str]) -> tuple[str, str]:
    """(what is given a value, the value) of an equation or a chain of them: of x = 2+3 = 5 and of 5 = x, x and 5."""
    if len(marks) == 1:
        name, said = parts
        if marks[0] == "=" and bare_name(said) and not bare_name(name):
            return said, name
        if _arithmetic(name) and _arithmetic(said):
            return "", said  # 10^3 = 1000 states 1000
        return name, said
    names = [part for part in parts[:-1] if bare_name(part)]
    if names or all(_arithmetic(part) for part in parts[:-1]):
        return names[0] if names else "", parts[-1]
    return parts[0], parts[-1]
