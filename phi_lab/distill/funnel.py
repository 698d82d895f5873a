"""Which rollouts become training data, and what became of the others.

The filters in order, each with its reason; the paper's attributes (domain, difficulty, repetition; section 3, data) are
kept beside every row. A question's rollouts are judged together, shard by shard, so memory does not grow with their
number; across shards are remembered only signatures of questions and counts.

Three things must not slip in. A benchmark's problem: in the small world the canonical operands decide (a split, see
`domains.problem`), in natural text thirteen words in a row. The same question twice in other words: MinHash of its
words. The same answer twice: equal text, or with `near` most of its word triples.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby

import numpy as np
import regex
from rensa import RMinHash

from phi_lab.model import chat
from phi_lab.problems.problem import WORLD

VERDICTS = ("right", "wrong", "unfinished", "unparsed", "timeout")
SHOWN = 20  # contaminated questions that the card quotes
WORDS = 13  # in a row that a question may not share with a benchmark's
FOREIGN = regex.compile(r"[^\W\d_]")
HOME = regex.compile(r"[\p{Latin}\p{Greek}]")


@dataclass(frozen=True)
class Rules:
    """How strict to be. The small world needs the defaults only."""

    max_tokens: int = 250  # tokens of an answer
    max_non_latin_share: float = 0.05  # share of letters that are neither Latin nor Greek
    near_duplicate_threshold: float = 1.0  # answers to a question that share more of their word triples are one; 1.0: equal ones only
    pass_rate_range: tuple[float, float] = (0.0, 1.0)  # of right answers to a question
    level_range: tuple[int, int] = (0, 99)  # of a question; 0 where its set knows none
    max_per_domain: int = 0  # right rollouts of one domain at most, the first ones; 0: all


STEPS = {
    "clean": "a problem of a benchmark",
    "new question": "nearly the same question came before",
    "right": "the verifier does not accept the final answer",
    "worked": "an answer without written work",
    "no repetition": "the same step written three times or more",
    "one script": "letters of other scripts",
    "fits": "an answer that is too long",
    "distinct": "word for word the same answer to the same question",
    "not alike": "nearly the same answer to the same question",
    "difficulty": "a question that is too easy or too hard",
    "balance": "more than the share of its domain",
}


@dataclass
class Funnel:
    """Takes rollouts, whole questions at a time, hands back what is left, and counts."""

    rules: Rules = field(default_factory=Rules)
    benchmarks: "Benchmarks | None" = None
    questions: int = 0
    rollouts: int = 0
    rescued: int = 0  # turned down by the rules, accepted by the judge
    removed: Counter = field(default_factory=Counter)
    verdicts: Counter = field(default_factory=Counter)
    domains: Counter = field(default_factory=Counter)
    contaminated: list[dict] = field(default_factory=list)
    _seen: "Questions" = field(default_factory=lambda: Questions())

    def sift(self, rows: Iterable[dict]) -> Iterator[tuple[list[dict], list[dict]]]:
        """(right rollouts that pass, different wrong ones) of each question; rows of a question stand together."""
        for _, group in groupby(rows, key=lambda row: row["id"]):
            yield self._question(list(group))

    def _question(self, rows: list[dict]) -> tuple[list[dict], list[dict]]:
        self.questions, self.rollouts = self.questions + 1, self.rollouts + len(rows)
        self.verdicts.update(row["verdict"] for row in rows)
        self.rescued += sum(accepted(row) and row["verdict"] != "right" for row in rows)
        rate = sum(map(accepted, rows)) / len(rows)
        shared = self.benchmarks and self.benchmarks.shared(rows[0])
        if shared:
            self.removed["clean"] += len(rows)
            if len(self.contaminated) < SHOWN:
                self.contaminated.append({"id": rows[0]["id"], "prompt": rows[0]["prompt"], "shared": shared})
            return [], []
        if rows[0]["domain"] not in WORLD and self._seen.near(rows[0]["prompt"]):
            self.removed["new question"] += len(rows)
            return [], []
        rows = [{**row, "pass_rate": rate, "repeats": repeats(row["completion"])} for row in rows]
        wrong = distinct([row for row in rows if row["verdict"] == "wrong" and not accepted(row)])
        kept = self._drop("right", rows, list(filter(accepted, rows)))
        kept = self._drop("worked", kept, [row for row in kept if has_reasoning(row["completion"])])
        kept = self._drop("no repetition", kept, [row for row in kept if not row["repeats"]])
        kept = self._drop("one script", kept, [row for row in kept if foreign(row["completion"]) <= self.rules.max_non_latin_share])
        kept = self._drop("fits", kept, [row for row in kept if row["tokens"] <= self.rules.max_tokens])
        kept = self._drop("distinct", kept, distinct(kept))
        kept = self._drop("not alike", kept, drop_near_duplicates(kept, self.rules.near_duplicate_threshold))
        (low, high), (first, last) = self.rules.pass_rate_range, self.rules.level_range
        fits = low <= rate <= high and first <= rows[0]["level"] <= last
        kept = self._drop("difficulty", kept, kept if fits else [])
        room = self.rules.max_per_domain - self.domains[rows[0]["domain"]] if self.rules.max_per_domain else len(kept)
        kept = self._drop("balance", kept, kept[: max(0, room)])
        self.domains[rows[0]["domain"]] += len(kept)
        return kept, wrong

    def _drop(self, step: str, before: list[dict], after: list[dict]) -> list[dict]:
        self.removed[step] += len(before) - len(after)
        return after

    def report(self) -> dict:
        """What funnel.json holds: every step with what it kept and removed and why."""
        steps, left = [], self.rollouts
        for name, why in STEPS.items():
            left -= self.removed[name]
            steps.append({"name": name, "kept": left, "removed": self.removed[name], "why": why})
        return {
            "questions": self.questions, "rollouts": self.rollouts, "steps": steps,
            "verdicts": {verdict: self.verdicts[verdict] for verdict in VERDICTS},
            "rescued": self.rescued, "domains": dict(self.domains), "contaminated": self.contaminated,
        }


def accepted(row: dict) -> bool:
    """Whether the rules call a rollout right, or the judge does whom they were shown to."""
    return row["verdict"] == "right" or row.get("judge") == "right"


def has_reasoning(completion: str) -> bool:
    """Whether there is work before the answer."""
    return chat.THINK in completion and len(completion.partition(chat.THINK_END)[0]) > 8


def repeats(completion: str) -> bool:
    """Whether a step is written three times: the repetition that the paper's attributes mark."""
    steps = [step for step in completion.split(".") if len(step) > 4]
    return bool(steps) and Counter(steps).most_common(1)[0][1] >= 3


def foreign(completion: str) -> float:
    """The share of letters that are neither Latin nor Greek: a teacher that changes its language in mid-thought."""
    if completion.isascii():
        return 0.0
    letters = FOREIGN.findall(completion)
    return 1 - sum(map(bool, map(HOME.match, letters))) / len(letters) if letters else 0.0


def distinct(rows: list[dict]) -> list[dict]:
    """The rows without those whose answer to the same question came before, word for word."""
    return list({(row["id"], row["completion"]): row for row in reversed(rows)}.values())[::-1]


def drop_near_duplicates(rows: list[dict], near: float) -> list[dict]:
    """Answers to one question of which no two share more than `near` of their word triples (Jaccard)."""
    if near >= 1:
        return rows
    kept, sets = [], []
    for row in rows:
        words = row["completion"].split()
        triples = set(zip(words, words[1:], words[2:], strict=False)) or {tuple(words)}
        if all(len(triples & other) <= near * len(triples | other) for other in sets):
            kept.append(row)
            sets.append(triples)
    return kept


class Questions:
    """Questions seen so far, by MinHash signatures in bands: about 80 % of the words in common is near."""

    BANDS, ROWS = 8, 8

    def __init__(self):
        self.buckets: set[bytes] = set()

    def near(self, prompt: str) -> bool:
        """Whether nearly this question came before; it has come now."""
        signature = RMinHash(num_perm=self.BANDS * self.ROWS, seed=1)
        signature.update(shingles(prompt.encode("utf-8", "replace").decode(), 3))
        bands = np.array(signature.digest(), np.uint32).reshape(self.BANDS, self.ROWS)
        keys = [bytes([number]) + blake2b(band.tobytes(), digest_size=8).digest() for number, band in enumerate(bands)]
        met = not self.buckets.isdisjoint(keys)
        self.buckets.update(keys)
        return met


def shingles(text: str, n: int) -> list[str]:
    """Every `n` words of a text in a row, in small letters and without signs; the whole text where it is shorter."""
    words = "".join(sign if sign.isalnum() else " " for sign in text.casefold()).split()
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


class Benchmarks:
    """What must not be trained on: the questions of benchmarks, as `WORDS` words in a row."""

    def __init__(self, questions: Iterable[tuple[str, str]]):
        self.owners: dict[str, str] = {}
        for name, prompt in questions:
            for words in shingles(prompt, WORDS):
                self.owners.setdefault(words, name)

    def shared(self, row: dict) -> str | None:
        """What a question shares with a benchmark, or None."""
        if row["domain"] in WORLD:
            return "the operands of a benchmark's problem" if row.get("split") == "benchmark" else None
        for words in shingles(row["prompt"], WORDS):
            if words in self.owners:
                return f"{self.owners[words]}: {words}"
        return None
