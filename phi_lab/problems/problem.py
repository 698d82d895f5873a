"""What a problem is, and which split it belongs to.

A split is a hash of the *canonical operands and operators*, never of a seed or of the wording. "Ann has 47 apples and
gets 38 more", "Compute 38+47." and the equation that is solved by the same steps are one problem in different
clothes, so they share a key and can never stand on both sides of the train/benchmark line.
"""

import hashlib
from dataclasses import dataclass

WORLD = ("arithmetic", "logic")  # domains whose problems have canonical operands


@dataclass(frozen=True)
class Problem:
    """One question with its answer and the steps that solve it.

    domain: "arithmetic" or "logic". family: the wording ("expression", "word", "let", "equation", "fraction", ...).
    level: number of operations, 1 to 4. key: canonical operands and operators. steps: what a worked solution writes,
    as (operator, left, right) integers.
    """

    domain: str
    family: str
    level: int
    key: str
    prompt: str
    answer: str
    steps: tuple[tuple[str, int, int], ...] = ()

    @property
    def id(self) -> str:
        return f"{self.domain}-{_digest(self.prompt)[:12]}"

    @property
    def split(self) -> str:
        """ "train" (80 %), "validation" (8 %) or "benchmark" (12 %), by the hash of `key` alone."""
        bucket = int(_digest(self.key)[:8], 16) % 100
        return "train" if bucket < 80 else "validation" if bucket < 88 else "benchmark"

    def row(self) -> dict:
        """The problem as it stands in a JSON Lines file."""
        return {"id": self.id, "domain": self.domain, "level": self.level, "prompt": self.prompt, "answer": self.answer}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
