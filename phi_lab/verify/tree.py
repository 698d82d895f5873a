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


def _children(tree: Tree) -> list[Tree]:
    parts = []
    for part in tree[1:]:
        if isinstance(part, tuple) and part and isinstance(part[0], str):
            parts.append(part)
        elif isinstance(part, list):
            parts += [p for row in part for p in (row if isinstance(row, list) else [row])]
    return parts
