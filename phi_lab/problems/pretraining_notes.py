"""Short texts without reasoning, for pretraining: what a base model has met before it learns to reason.

Notes come as (prefix, continuation) pairs. Only the continuation carries loss, since the prefix (which sum comes next)
cannot be predicted.
"""

import random

from phi_lab.problems.arithmetic import apply, sample_split
from phi_lab.problems.worked_solutions import remaining_operations, write_solution, write_step

LONGEST = 7  # operations: longer than any worked solution that the teacher learns from
Notes = list[tuple[str, str]]


def facts(rng: random.Random, split: str) -> Notes:
    """Twelve bare results: ("47+8=", "55.")."""
    notes = []
    for _ in range(12):
        operator, left, right = sample_split(rng, 1, split).steps[0]
        notes.append((f"{left}{operator}{right}=", f"{apply(operator, left, right)}."))
    return notes


def tables(rng: random.Random) -> Notes:
    """Sixteen products and quotients as columns need them: ("4*6+2=", "26."), ("27/6=", "4r3.").

    No benchmark problem hides in them: those start above 10 and divide without a remainder.
    """
    notes = []
    for _ in range(16):
        left, right = rng.randint(1, 9), rng.randint(2, 9)
        if rng.random() < 0.6:
            carry = rng.randrange(right)
            notes.append((f"{left}*{right}{f'+{carry}' if carry else ''}=", f"{left * right + carry}."))
        else:
            remainder = rng.randrange(1, right)
            notes.append((f"{left * right + remainder}/{right}=", f"{left}r{remainder}."))
    return notes


def readings(rng: random.Random, split: str) -> Notes:
    """Six questions, each with its operation and result: ("Solve x+5 = 30 for x. ", "30-5=25.")."""
    notes = []
    for _ in range(6):
        problem = sample_split(rng, 1, split)
        operator, left, right = problem.steps[0]
        notes.append((f"{problem.prompt} ", f"{left}{operator}{right}={problem.answer}."))
    return notes


def plans(rng: random.Random, split: str) -> Notes:
    """Three longer questions, each with its operations but no results: ("Compute 47+38-12. ", "47+38,-12.")."""
    notes: Notes = []
    while len(notes) < 3:
        problem = sample_split(rng, rng.randint(2, LONGEST), split)
        if problem.family not in ("equation", "fraction") and rng.random() < 0.5:
            continue  # equations and fractions, whose plan differs from the wording, come more often
        notes.append((f"{problem.prompt} ", f"{','.join(remaining_operations(problem)[0])}."))
    return notes


def scratch_work(rng: random.Random, split: str) -> str:
    """Two to seven steps with their columns, or only their columns' results, and no question around them. Half of them
    have a plan and carry the remaining operations along: that lists of any length are read is what lets a student go
    beyond its teacher's answers.
    """
    problem, kind = sample_split(rng, rng.randint(2, LONGEST), split), rng.random()
    if kind < 0.5:
        return write_solution(problem, "columns", rng)[0]
    return "".join(write_step(step, "columns" if kind < 0.75 else "terse", rng) for step in problem.steps)
