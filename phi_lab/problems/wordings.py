"""The wordings in which a chain of operations is asked: an expression, a story, a substitution or an equation.

A wording never enters a problem's key: the same chain in other words is the same problem and falls into the same split.
"""

import random
from collections.abc import Callable

Operation = tuple[str, int]  # operator, right operand; the left one is the result before it

NAMES = ("Ann", "Bob", "Eva", "Ian", "Joy", "Leo", "Mia", "Tom")
THINGS = ("apples", "beads", "books", "cards", "coins", "nuts", "pens", "shells")
STORY_PHRASES = {
    "+": ("gets {} more", "finds {} more", "buys {} more"),
    "-": ("gives away {}", "loses {}", "sells {}"),
    "*": ("makes it {} times as many", "ends up with {} times as many"),
    "/": ("shares them equally among {} bags and keeps one bag", "keeps only one part of {} equal parts"),
}
FRACTION_WORDINGS = ("What is {} as a fraction?", "Compute {} as a fraction.", "What fraction is {}?")
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


def expression(rng: random.Random, start: int, operations: list[Operation]) -> str:
    """Compute (47+38)*3."""
    return f"Compute {_infix(str(start), operations)}."


def substitution(rng: random.Random, start: int, operations: list[Operation]) -> str:
    """Let a = 47+38. Find a*3."""
    left, sentences = str(start), []
    for letter, (operator, right) in zip("abcpqr", operations[:-1], strict=False):
        sentences.append(f"Let {letter} = {left}{operator}{right}.")
        left = letter
    operator, right = operations[-1]
    return " ".join([*sentences, f"Find {left}{operator}{right}."])


def story(rng: random.Random, start: int, operations: list[Operation]) -> str:
    """Ann has 47 apples. Then Ann gets 38 more. How many apples does Ann have now?"""
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    sentences = [
        f"Then {name} {rng.choice(STORY_PHRASES[operator]).format(right)}." for operator, right in operations
    ]
    return " ".join([f"{name} has {start} {things}.", *sentences, f"How many {things} does {name} have now?"])


def equation(rng: random.Random, start: int, operations: list[Operation]) -> str:
    """Solve x/3-38 = 47 for x. Undoing its left-hand side takes exactly `operations`, applied to `start`."""
    inverse = [(INVERSE[operator], right) for operator, right in reversed(operations)]
    return f"Solve {_infix('x', inverse)} = {start} for x."


# How often each family of wordings is chosen, and what writes it.
WORDINGS: dict[str, tuple[int, Callable[[random.Random, int, list[Operation]], str]]] = {
    "expression": (35, expression), "word": (25, story), "let": (20, substitution), "equation": (20, equation),
}


def _infix(text: str, operations: list[Operation]) -> str:
    """Write operations after `text`, with parentheses only where they are needed."""
    is_sum = False
    for operator, right in operations:
        if operator in "*/" and is_sum:
            text = f"({text})"
        text = f"{text}{operator}{right}"
        is_sum = operator in "+-"
    return text
