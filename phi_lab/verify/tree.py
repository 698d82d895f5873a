"""What a parsed expression looks like.

A tree is a tuple: ("num", Fraction), ("const", "pi"), ("sym", name), ("add", terms), ("mul", factors), ("div", a, b),
("pow", a, b), ("neg", a), ("fun", name, arguments), ("big", "sum", index, low, high, body), ("matrix", rows).
"""

Tree = tuple
OPERATORS = {"sum", "prod", "gcd", "lcm", "max", "min", "lfloor", "lceil"}  # what a question asks to work out


class Unread(ValueError):
    """The text holds something that is not known, or too large to work out."""


def names(tree: Tree) -> set[str]:
    """The free symbols of a tree."""
    if tree[0] == "sym":
        return {tree[1]}
    if tree[0] == "big":
        return (names(tree[3]) | names(tree[4]) | names(tree[5])) - {tree[2]}
    return set().union(*(names(part) for part in _children(tree)), set())


def operators(tree: Tree) -> set[str]:
    """The operators in a tree that a question asks to work out: sums, products, gcd, floors, …"""
    mine = {tree[1]} & OPERATORS if tree[0] in ("fun", "big") else set()
    return mine.union(*(operators(part) for part in _children(tree)))


def written(tree: Tree) -> bool:
    """Is a tree a number as it is written down, with nothing left to work out: a numeral or a fraction of two, perhaps
    with a sign, perhaps times a power of ten? Or a matrix of such, perhaps with a number before it?"""
    if tree[0] == "neg":
        return written(tree[1])
    if tree[0] == "matrix":
        return all(written(entry) for row in tree[1] for entry in row)
    if tree[0] == "mul" and len(tree[1]) == 2:
        first, second = tree[1]
        return _simple(first) and (_power_of_ten(second) or (second[0] == "matrix" and written(second)))
    return _simple(tree) or _power_of_ten(tree)


def _simple(tree: Tree) -> bool:
    if tree[0] == "neg":
        return _simple(tree[1])
    if tree[0] == "div":
        return all(_numeral(part) for part in tree[1:]) or (_numeral(tree[1]) and _power_of_ten(tree[2]))
    return tree[0] == "num"


def _numeral(tree: Tree) -> bool:
    return tree[0] == "num" or (tree[0] == "neg" and tree[1][0] == "num")


def _power_of_ten(tree: Tree) -> bool:
    return tree[0] == "pow" and tree[1] == ("num", 10) and _numeral(tree[2])


def _children(tree: Tree) -> list[Tree]:
    parts = []
    for part in tree[1:]:
        if isinstance(part, tuple) and part and isinstance(part[0], str):
            parts.append(part)
        elif isinstance(part, list):
            parts += [p for row in part for p in (row if isinstance(row, list) else [row])]
    return parts
