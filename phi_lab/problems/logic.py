"""The other domain: truth values and a small stack machine.

It plays the part that GPQA plays in the paper: something the base model half knows, that no later stage ever sees, so
that we can watch what a recipe for arithmetic does to it. Answers are single digits, so that guessing gains little.
"""

import random

from phi_lab.problems.problem import Problem


def sample(rng: random.Random, level: int) -> Problem:
    """Draw one problem: a stack program with `level` operations, or `level` statements about three truth values."""
    return _stack(rng, level) if rng.random() < 0.6 else _truth(rng, level)


def sample_split(rng: random.Random, level: int, split: str) -> Problem:
    """Draw until the problem falls into `split`."""
    while True:
        problem = sample(rng, level)
        if problem.split == split:
            return problem


def _stack(rng: random.Random, level: int) -> Problem:
    """Numbers are pushed, operations work on the top two, everything modulo 10."""
    stack = [rng.randint(0, 9)]
    words = [f"push {stack[0]}"]
    for _ in range(level):
        number, operation = rng.randint(0, 9), rng.choice(("add", "sub", "mul", "max"))
        top = stack.pop()
        value = {"add": top + number, "sub": top - number, "mul": top * number, "max": max(top, number)}[operation] % 10
        stack.append(value)
        words.append(f"push {number} {operation}")
    program = " ".join(words)
    first, second, operation = words[0], *words[1].rsplit(" ", 1)
    twins = sorted((first, second)) if operation != "sub" else (first, second)  # 3 and 5 add up as 5 and 3 do
    key = " ".join((*twins, operation, *words[2:]))
    return Problem("logic", "stack", level, key, f"Run the stack: {program}. Top?", str(stack[-1]))


def _truth(rng: random.Random, level: int) -> Problem:
    """How many of the statements about p, q and r are true?"""
    values = {letter: rng.random() < 0.5 for letter in "pqr"}
    statements, meanings, true = [], [], 0
    for _ in range(level + 1):
        left, right = rng.sample("pqr", 2)
        kind = rng.choice(("and", "or", "xor", "not"))
        holds = {
            "and": values[left] and values[right],
            "or": values[left] or values[right],
            "xor": values[left] != values[right],
            "not": not values[left],
        }[kind]
        statements.append(f"not {left}" if kind == "not" else f"{left} {kind} {right}")
        meanings.append(f"not {left}" if kind == "not" else " ".join((kind, *sorted((left, right)))))
        true += holds
    given = " ".join(f"{letter} is {'true' if value else 'false'}," for letter, value in values.items())[:-1]
    prompt = f"Given {given}: how many are true? {'; '.join(statements)}."
    key = f"{given}|{'|'.join(sorted(meanings))}"
    return Problem("logic", "truth", level, key, prompt, str(true))
