"""The other domain: truth values and a small stack machine.

It stands for GPQA in the paper: something that the base model half knows and that no later stage trains on, so that we
can watch what a recipe for arithmetic does to it. Answers are single digits, so that guessing gains little.
"""

import random

from phi_lab.problems.problem import Problem, sample_from_split


def sample(rng: random.Random, level: int) -> Problem:
    """Sample one problem: a stack program with `level` operations, or `level` + 1 statements about truth values."""
    return _stack(rng, level) if rng.random() < 0.6 else _truth(rng, level)


def sample_split(rng: random.Random, level: int, split: str) -> Problem:
    """Sample until the problem falls into `split`."""
    return sample_from_split(sample, rng, level, split)


def _stack(rng: random.Random, level: int) -> Problem:
    """A program that pushes numbers and combines the top two, everything modulo 10; what is left on top?"""
    top = rng.randint(0, 9)
    instructions = [f"push {top}"]
    for _ in range(level):
        number, operation = rng.randint(0, 9), rng.choice(("add", "sub", "mul", "max"))
        top = {"add": top + number, "sub": top - number, "mul": top * number, "max": max(top, number)}[operation] % 10
        instructions.append(f"push {number} {operation}")
    first, second, operation = instructions[0], *instructions[1].rsplit(" ", 1)
    pair = sorted((first, second)) if operation != "sub" else [first, second]  # 3 and 5 add up as 5 and 3 do
    key = " ".join((*pair, operation, *instructions[2:]))
    return Problem("logic", "stack", level, key, f"Run the stack: {' '.join(instructions)}. Top?", str(top))


def _truth(rng: random.Random, level: int) -> Problem:
    """How many of the statements about p, q and r are true?"""
    values = {letter: rng.random() < 0.5 for letter in "pqr"}
    statements, canonical, true_count = [], [], 0
    for _ in range(level + 1):
        left, right = rng.sample("pqr", 2)
        kind = rng.choice(("and", "or", "xor", "not"))
        true_count += {
            "and": values[left] and values[right],
            "or": values[left] or values[right],
            "xor": values[left] != values[right],
            "not": not values[left],
        }[kind]
        statements.append(f"not {left}" if kind == "not" else f"{left} {kind} {right}")
        canonical.append(f"not {left}" if kind == "not" else " ".join((kind, *sorted((left, right)))))
    given = ", ".join(f"{letter} is {'true' if value else 'false'}" for letter, value in values.items())
    prompt = f"Given {given}: how many are true? {'; '.join(statements)}."
    return Problem("logic", "truth", level, f"{given}|{'|'.join(sorted(canonical))}", prompt, str(true_count))
