"""The filters: which rollouts become training data. The lists at the end give their order.

A filter is a function of one question's rollouts that returns those it keeps. Three things must not slip in: a
benchmark's problem, the same question in nearly the same words, the same answer twice. The paper's attributes (domain,
difficulty, repetition; section 3, data) are saved with every row that remains.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import regex

from phi_lab.core.records import Rollout
from phi_lab.distill.decontamination import BenchmarkIndex, QuestionIndex
from phi_lab.model import chat
from phi_lab.problems import WORLD
from phi_lab.verify import extract

MAX_QUOTED = 20  # contaminated questions that the dataset card quotes
ANNOUNCED = regex.compile(  # what an answer says of itself, and what is no work
    r"(?i)\\boxed|\b(?:so|the|a|final|answer|result|is|are|therefore|thus|hence|we|get|it)\b|[^\w+*/=<>-]"
)
LETTER = regex.compile(r"[^\W\d_]")
LATIN_OR_GREEK = regex.compile(r"[\p{Latin}\p{Greek}]")


@dataclass(frozen=True)
class Rules:
    """Thresholds of the filters; the defaults are those of the small world."""

    max_tokens: int = 300  # of an answer
    max_non_latin_share: float = 0.05  # of its letters
    near_duplicate_threshold: float = 1.0  # largest Jaccard similarity of two answers to a question; 1.0: off
    pass_rate_range: tuple[float, float] = (0.0, 1.0)  # share of a question's rollouts that are right
    level_range: tuple[int, int] = (0, 99)  # of a question; 0 where its dataset has no levels
    max_per_domain: int = 0  # rollouts kept per domain, in order of arrival; 0: no limit
    require_reasoning: bool = True  # a thought between <think> tags; else work before the answer is enough


@dataclass
class FunnelState:
    """What filters look up and remember from question to question; its memory grows with questions, not rollouts."""

    rules: Rules
    benchmarks: BenchmarkIndex | None
    seen_questions: QuestionIndex = field(default_factory=QuestionIndex)
    contaminated: list[dict] = field(default_factory=list)
    kept_per_domain: Counter[str] = field(default_factory=Counter)
    untagged: int = 0  # answers with their work in plain text that were kept
    dropped_untagged: int = 0  # and that were not


def not_in_benchmark(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes questions that overlap with a benchmark: training on them would invalidate its accuracy."""
    question = rollouts[0]
    shared = state.benchmarks.overlap(question) if state.benchmarks else None
    if not shared:
        return rollouts
    if len(state.contaminated) < MAX_QUOTED:
        state.contaminated.append({"id": question["id"], "prompt": question["prompt"], "shared": shared})
    return []


def new_question(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes questions of natural text that came before in nearly the same words: they would count twice.

    The small world's questions differ by construction (`arithmetic.sample_problems`).
    """
    question = rollouts[0]
    return [] if question["domain"] not in WORLD and state.seen_questions.add(question["prompt"]) else rollouts


def right_answer(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes rollouts whose final answer neither the verifier nor the judge accepts."""
    return list(filter(accepted, rollouts))


def with_reasoning(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes answers without written work: they teach guessing. Where no tags are required, work in plain text counts
    too, as published solutions and teachers without tags write it.
    """
    plain = not state.rules.require_reasoning
    kept = []
    for row in rollouts:
        tagged = has_reasoning(row["completion"])
        if tagged or (plain and has_plain_work(row["completion"])):
            kept.append(row)
            state.untagged += not tagged
        else:
            state.dropped_untagged += has_plain_work(row["completion"])
    return kept


def without_repetition(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes answers that write a step three times or more: they teach loops."""
    return [row for row in rollouts if not row["repeats"]]


def one_script(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes answers with many letters of other scripts: a teacher that changed its language in mid-thought."""
    limit = state.rules.max_non_latin_share
    return [row for row in rollouts if non_latin_share(row["completion"]) <= limit]


def short_enough(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes answers over `max_tokens`, which with its prompt might not fit into a training row."""
    return [row for row in rollouts if row["tokens"] <= state.rules.max_tokens]


def not_equal(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes exact duplicates of an earlier answer: questions with few different answers would weigh more."""
    return distinct(rollouts)


def not_alike(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes answers that are nearly the same as one before."""
    return drop_near_duplicates(rollouts, state.rules.near_duplicate_threshold)


def in_difficulty_range(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes questions that are too easy or too hard, by pass rate or level: there is little to learn from them."""
    (low, high), (first, last) = state.rules.pass_rate_range, state.rules.level_range
    return [row for row in rollouts if low <= row["pass_rate"] <= high and first <= row["level"] <= last]


def within_domain_share(rollouts: list[Rollout], state: FunnelState) -> list[Rollout]:
    """Removes what a domain has beyond `max_per_domain`, so that a large dataset does not drown the others."""
    limit = state.rules.max_per_domain
    if not limit or not rollouts:
        return rollouts
    return rollouts[: max(0, limit - state.kept_per_domain[rollouts[0]["domain"]])]


def accepted(row: Rollout) -> bool:
    """Whether the verifier or, for a rollout it rejected, the LLM judge accepts the final answer."""
    return row["verdict"] == "right" or row.get("judge") == "right"


def has_reasoning(completion: str) -> bool:
    """Whether there is a thought between <think> tags before the answer."""
    return chat.THINK in completion and len(completion.partition(chat.THINK_END)[0]) > 8


def has_plain_work(completion: str) -> bool:
    """Whether an answer without tags says more than its final answer and the words that announce it."""
    if chat.THINK in completion:
        return False
    work = completion.rpartition(extract(completion) or "\\boxed")[0] or completion
    return len(ANNOUNCED.sub("", work)) >= 3


def repeats(completion: str) -> bool:
    """Whether a step is written three times: the repetition among the paper's attributes."""
    steps = [step for step in completion.split(".") if len(step) > 4]
    return bool(steps) and Counter(steps).most_common(1)[0][1] >= 3


def non_latin_share(completion: str) -> float:
    """The share of letters that are neither Latin nor Greek, between 0 and 1."""
    if completion.isascii():
        return 0.0
    letters = LETTER.findall(completion)
    return 1 - sum(map(bool, map(LATIN_OR_GREEK.match, letters))) / len(letters) if letters else 0.0


def distinct(rollouts: list[Rollout]) -> list[Rollout]:
    """The first of every set of equal answers to a question."""
    return list({(row["id"], row["completion"]): row for row in reversed(rollouts)}.values())[::-1]


def drop_near_duplicates(rollouts: list[Rollout], threshold: float) -> list[Rollout]:
    """Those answers of which no two share more than `threshold` of their word triples (Jaccard similarity)."""
    if threshold >= 1:
        return rollouts
    kept, kept_triples = [], list[set]()
    for row in rollouts:
        words = row["completion"].split()
        triples: set = set(zip(words, words[1:], words[2:], strict=False)) or {tuple(words)}
        if all(len(triples & other) <= threshold * len(triples | other) for other in kept_triples):
            kept.append(row)
            kept_triples.append(triples)
    return kept


class Filter(NamedTuple):
    """A step of the funnel: its name and reason in funnel.json, and the function that keeps or removes."""

    name: str
    why: str
    keep: Callable[[list[Rollout], FunnelState], list[Rollout]]


QUESTION_FILTERS = (  # keep or remove a question with all its rollouts, the wrong ones too
    Filter("clean", "a problem of a benchmark", not_in_benchmark),
    Filter("new question", "nearly the same question came before", new_question),
)
ROLLOUT_FILTERS = (
    Filter("right", "the verifier does not accept the final answer", right_answer),
    Filter("worked", "an answer without written work", with_reasoning),
    Filter("no repetition", "the same step written three times or more", without_repetition),
    Filter("one script", "letters of other scripts", one_script),
    Filter("fits", "an answer that is too long", short_enough),
    Filter("distinct", "word for word the same answer to the same question", not_equal),
    Filter("not alike", "nearly the same answer to the same question", not_alike),
    Filter("difficulty", "a question that is too easy or too hard", in_difficulty_range),
    Filter("balance", "more than the share of its domain", within_domain_share),
)
