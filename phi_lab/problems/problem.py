"""What a problem is, and which split it belongs to.

A split is a hash of the *canonical operands and operators*, never of a seed or of the wording. "Ann has 47 apples and
gets 38 more", "Compute 38+47." and the equation that is solved by the same steps are one problem in three wordings:
they share a key, so they can never stand on both sides of the line between training and benchmark.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from phi_lab.core.records import ProblemRow

WORLD = ("arithmetic", "logic")  # the small world's domains, whose problems have canonical operands

Step = tuple[str, int, int]  # operator, left operand, right operand


@dataclass(frozen=True)
class Problem:
    """One question with its answer and the steps that solve it.

    domain: "arithmetic", "logic" or the name of a published set. family: the wording ("expression", "word", "let",
    "equation", "fraction", ...). level: number of operations, 1 to 7 in the small world; 0 where a set has no levels.
    key: canonical operands and operators. steps: the integer steps that a worked solution writes out.
    """

    domain: str
    family: str
    level: int
    key: str
    prompt: str
    answer: str
    steps: tuple[Step, ...] = ()

    @property
    def id(self) -> str:
        """The domain and a hash of the prompt."""
        return f"{self.domain}-{_digest(self.prompt)[:12]}"

    @property
    def split(self) -> str:
        """ "train" (80 %), "validation" (8 %) or "benchmark" (12 %), by the hash of `key` alone."""
        bucket = int(_digest(self.key)[:8], 16) % 100
        return "train" if bucket < 80 else "validation" if bucket < 88 else "benchmark"

    def row(self) -> ProblemRow:
        """The problem as a row of a JSON Lines file."""
        return ProblemRow(id=self.id, domain=self.domain, level=self.level, prompt=self.prompt, answer=self.answer)


def sample_from_split(
    sample: Callable[[random.Random, int], Problem], rng: random.Random, level: int, split: str
) -> Problem:
    """Call `sample(rng, level)` until the problem falls into `split` (see `Problem.split`)."""
    while True:
        problem = sample(rng, level)
        if problem.split == split:
            return problem


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
