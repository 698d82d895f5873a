"""Which questions must not be trained on: those of benchmarks, and those that came before in nearly the same words."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import numpy as np
from rensa import RMinHash

from phi_lab.problems import WORLD

OVERLAP_WORDS = 13  # a question with this many consecutive words of a benchmark's question is contaminated


class BenchmarkIndex:
    """The questions of benchmarks, as runs of `OVERLAP_WORDS` words. `questions`: (benchmark, prompt) pairs."""

    def __init__(self, questions: Iterable[tuple[str, str]]) -> None:
        self.benchmark_of: dict[str, str] = {}
        for name, prompt in questions:
            for shingle in shingles(prompt, OVERLAP_WORDS):
                self.benchmark_of.setdefault(shingle, name)

    def overlap(self, problem: Mapping) -> str | None:
        """What a problem's row shares with a benchmark, or None.

        In the small world canonical operands decide (the row's split), in natural text the words of the prompt.
        """
        if problem["domain"] in WORLD:
            return "the operands of a benchmark's problem" if problem.get("split") == "benchmark" else None
        for shingle in shingles(problem["prompt"], OVERLAP_WORDS):
            if shingle in self.benchmark_of:
                return f"{self.benchmark_of[shingle]}: {shingle}"
        return None


class QuestionIndex:
    """The questions seen so far, as banded MinHash of word triples; near: a Jaccard similarity of about 0.77."""

    BANDS, ROWS = 8, 8

    def __init__(self) -> None:
        self.buckets: set[bytes] = set()

    def add(self, prompt: str) -> bool:
        """Add a question; returns whether a near-duplicate was there already."""
        signature = RMinHash(num_perm=self.BANDS * self.ROWS, seed=1)
        signature.update(shingles(prompt.encode("utf-8", "replace").decode(), 3))
        bands = np.array(signature.digest(), np.uint32).reshape(self.BANDS, self.ROWS)
        keys = [bytes([number]) + blake2b(band.tobytes(), digest_size=8).digest() for number, band in enumerate(bands)]
        seen = not self.buckets.isdisjoint(keys)
        self.buckets.update(keys)
        return seen


def shingles(text: str, n: int) -> list[str]:
    """Every run of `n` words of a text, in lower case and without punctuation; the whole text where it is shorter."""
    words = "".join(sign if sign.isalnum() else " " for sign in text.casefold()).split()
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]
