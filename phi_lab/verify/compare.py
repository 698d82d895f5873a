"""Are two answers the same mathematical answer? Runs in the verifier's worker process only.

An answer is taken apart as text (lists, tuples, intervals, matrices, equations, units) down to its leaves. Leaves that
are numbers are compared as exact fractions, words as words, and only what a closed parser reads whole is compared by
value (`leaves`, `latex`, `value`). What was not understood is right only if it is the same text.

The comparison is of an answer with a gold, not of two equals: an answer may leave a unit or a name out that the gold
has, but may not leave to be worked out (`\\gcd(12,18)`) what the gold has worked out.
"""

import re
from collections.abc import Iterable, Sequence

from phi_lab.verify import leaves, relations
from phi_lab.verify.clean import clean, closes
from phi_lab.verify.leaves import Same
from phi_lab.verify.shape import RELATIONS, Shape, bare_name, between, interval, shape, split
from phi_lab.verify.text import number, same_number

_LABEL = re.compile(r"^«?\([A-E]\)»? (?=\S)")
_OPTION = re.compile(r"(?:[oO]ption|[cC]hoice)?\s*[(\[]?([A-J])(?:[).:\]]+(?:\s(?!.*\b[A-HJ]\b).*)?)?")


def compare(answer: str, gold: str, strict: bool = True) -> Same:
    """Is an answer the gold?"""
    a, g = (_unwrapped(clean(s)) for s in (answer, gold))
    options = [_OPTION.fullmatch(re.sub("[«»]", "", s).strip()) for s in (a, g)]
    if options[0] and options[1]:  # "(A) 12" names the choice A
        return Same(options[0][1] == options[1][1], "choice")
    return _Comparison(strict).same(*(_LABEL.sub("", s) for s in (a, g)))


class _Comparison:
    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def same(self, a: str, g: str) -> Same:
        if not a or not g:
            return Same(False, "empty")
        if a == g:
            return Same(True, "text")
        x, y = number(a), number(g)
        if x and y:
            return Same(same_number(x, y), "number")
        left, right = (Shape("one", [s]) if number(leaves.measured(s)[0]) else shape(s) for s in (a, g))
        if left.kind == right.kind == "one":
            return self.leaf(left.items[0], right.items[0])
        if "and" in (left.kind, right.kind):
            return self.joint(a, left, g, right)
        if "matrix" in (left.kind, right.kind):
            return self.matrices(a, left, g, right)
        if (found := self.as_interval(a, left, g, right)) is not None:
            return found
        bare = [_unnamed(s, of) for s, of in ((a, left), (g, right))]
        if (bare[0], bare[1]) != (a, g):
            return self.same(bare[0], bare[1])
        return self.collections(left, right)

    # ---- Of several parts -------------------------------------------------------------------------

    def collections(self, left: Shape, right: Shape) -> Same:
        kinds = {left.kind, right.kind}
        ordered = {kind for kind in kinds if kind[0] in "(["}
        if kinds == {"union", "list"}:
            listed = left if left.kind == "list" else right
            if not all(split(part, RELATIONS)[1] for part in listed.items):
                return Same(False, "shape")
            return self.multiset([_ray(item) for item in left.items], [_ray(item) for item in right.items], "union")
        if "one" in kinds:
            return self.decimal_comma(left, right)
        if len(ordered) == 2:
            same_kind = left.kind == right.kind or (len(left.items) > 2 and kinds <= {"()", "[]"})
            if not same_kind or len(left.items) != len(right.items):
                return Same(False, "interval")
            return self.in_order(left.items, right.items, "tuple")
        if len(ordered) == 1 and len(kinds) == 1:
            if len(left.items) != len(right.items):
                return Same(False, "tuple")
            return self.in_order(left.items, right.items, "tuple")
        if ordered:
            return self.named_tuple(left, right) if ordered == {"()"} and "list" in kinds else Same(False, "shape")
        items = left.items, right.items
        solutions = all(item[:1] == "(" for side in items for item in side)
        if "union" not in kinds and (right.kind == "set" or solutions):
            items = self.distinct(left.items), self.distinct(right.items)
        return self.multiset(*items, rule=right.kind)

    def joint(self, a: str, left: Shape, g: str, right: Shape) -> Same:
        """x≥1 and x<2, against the like, a chain, an interval, or conditions between commas; never against "or"."""
        alike = left.kind == right.kind
        if alike or ({left.kind, right.kind} == {"and", "list"} and "\\lor" not in a + g):
            statements = all(split(part, RELATIONS)[1] for part in left.items + right.items)
            found = self.multiset(left.items, right.items, "and") if alike or statements else Same(False, "and")
            if found.same:
                return found
        chains = [of.kind == "and" and between(of.items) for of in (left, right)]
        return self.same(chains[0] or a, chains[1] or g) if any(chains) else Same(False, "and")

    def named_tuple(self, left: Shape, right: Shape) -> Same:
        """x=3, y=8 against (3,8): the names give the order."""
        if len(left.items) != len(right.items):
            return Same(False, "tuple")
        sides = []
        for side in (left, right):
            named = [re.fullmatch(r"([A-Za-z])\s*=(.*)", item, re.DOTALL) for item in side.items]
            by_name = {m[1]: m[2].strip() for m in named if m}
            if side.kind == "list" and len(by_name) == len(named):
                sides.append([by_name[name] for name in sorted(by_name)])
            else:
                sides.append(side.items)
        return self.in_order(sides[0], sides[1], "tuple")

    def in_order(self, left: Sequence[str], right: Sequence[str], rule: str) -> Same:
        return _all((self.same(p, q) for p, q in zip(left, right, strict=True)), rule)

    def multiset(self, left: Sequence[str], right: Sequence[str], rule: str) -> Same:
        """Each item of one side has its own partner on the other, in any order."""
        rest, unread = list(right), False
        if len(left) != len(rest):
            return Same(False, rule)
        for item in left:
            for index, partner in enumerate(rest):
                same = self.same(item, partner).same
                unread = unread or same is None
                if same:
                    del rest[index]
                    break
            else:
                return Same(None if unread else False, rule)
        return Same(True, rule)

    def distinct(self, items: Sequence[str]) -> list[str]:
        kept: list[str] = []
        for item in items:
            if not any(self.same(item, other).same for other in kept):
                kept.append(item)
        return kept

    def decimal_comma(self, left: Shape, right: Shape) -> Same:
        """An answer 1,22 for 1.22: believed only beside a gold that has a point. A gold 1,22 is two answers."""
        one, whole = right, ",".join(left.items)
        plain = re.sub(r"\s*(«[$€£¥₹]»|[€£¥₹])\s*", "", whole)
        comma = left.kind == "list" and re.fullmatch(r"-?(?:\d+,\d{1,2}|0,\d+)", plain)
        if comma and one.kind == "one" and "." in one.items[0]:
            x, y = number(plain.replace(",", ".")), number(re.sub(r"\s*«[$€£¥₹]»\s*", "", one.items[0]))
            if x and y:
                return Same(same_number(x, y), "decimal comma")
        return Same(False, "shape")

    def matrices(self, a: str, left: Shape, g: str, right: Shape) -> Same:
        if left.kind == right.kind:
            if [len(r) for r in left.items] != [len(r) for r in right.items]:
                return Same(False, "matrix")
            return self.in_order(sum(left.items, []), sum(right.items, []), "matrix")
        matrix, other = (left, right) if left.kind == "matrix" else (right, left)
        if "\\begin" in a and "\\begin" in g:
            return self.leaf(_unnamed(a, left), _unnamed(g, right))
        vector = len(matrix.items) == 1 or all(len(row) == 1 for row in matrix.items)
        flat: list[str] = sum(matrix.items, [])
        if vector and other.kind in ("()", "list") and len(other.items) == len(flat):
            ours, theirs = (flat, other.items) if left is matrix else (other.items, flat)
            return self.in_order(ours, theirs, "matrix")
        return Same(False, "matrix")

    def as_interval(self, a: str, left: Shape, g: str, right: Shape) -> Same | None:
        """An inequality of a bare name against an interval or a union; None where that is not the question."""
        for one, its, other in ((a, left, right), (g, right, left)):
            if its.kind != "one" or other.kind[0] not in "([u":
                continue
            parts, marks = split(one, RELATIONS)
            if not marks or marks[-1] in ("=", "\\in", "\\equiv"):
                continue
            bounds = interval(parts, marks)
            if bounds is None:
                return Same(False, "interval")
            return self.same(bounds, g) if one is a else self.same(a, bounds)
        return None

    # ---- Of one part ------------------------------------------------------------------------------

    def leaf(self, a: str, g: str) -> Same:
        if leaves.squeezed(a) == leaves.squeezed(g) and not (re.search(r"\d\s+\d", a + g) or leaves.words(a)):
            return Same(True, "text")
        if split(a, RELATIONS)[1] or split(g, RELATIONS)[1]:
            return relations.compare(self.same, a, g)
        return leaves.compare(a, g, self.strict)


def _all(results: Iterable[Same], rule: str) -> Same:
    """True if all are; the first that is not decides."""
    failed = next((result for result in results if not result.same), None)
    return Same(failed.same, f"{rule}: {failed.rule}") if failed else Same(True, rule)


def _unwrapped(s: str) -> str:
    """(35 + 70 = 105) without the brackets around the chain."""
    inner = s[1:-1] if s[:1] == "(" and closes(s) == len(s) - 1 else ""
    return inner if "=" in inner and "," not in inner and split(inner, "=")[1] else s


def _unnamed(s: str, of: Shape) -> str:
    """A whole answer without "x =" or "x \\in" before it."""
    if of.kind == "list" or of.kind[0] in "([" or of.kind == "set":
        return s
    parts, marks = split(s, r"(?<![<>!])=|\\in(?![a-z])")
    return parts[1] if len(marks) == 1 and bare_name(parts[0]) else s


def _ray(item: str) -> str:
    parts, marks = split(item, RELATIONS)
    return (interval(parts, marks) if marks and marks[-1] not in ("=", "\\in") else None) or item
