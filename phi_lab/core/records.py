"""The rows that this project reads and writes as JSON Lines or Parquet, one type each.

They are plain dictionaries at run time. Training rows have the column names of TRL, so the files load anywhere.
"""

from typing import Literal, NotRequired, TypedDict

VerdictName = Literal["right", "wrong", "unfinished", "unparsed", "timeout"]


class ProblemRow(TypedDict):
    """A problem as a row of a benchmark's file."""

    id: str
    domain: str
    level: int  # 0: not known
    prompt: str
    answer: str  # the gold answer


class Rollout(ProblemRow):
    """One sampled answer with its verdict: a row of `rollouts/*.parquet`, right.jsonl and wrong.jsonl."""

    split: NotRequired[str]
    sample: int  # which of the problem's samples
    completion: str
    verdict: VerdictName
    finish_reason: str  # "stop", "length" or "refused"
    tokens: int  # of the completion, its stop token included
    teacher: str
    temperature: float
    seed: int
    pass_rate: NotRequired[float]  # share of the question's rollouts that are right; added by the funnel
    repeats: NotRequired[bool]
    judge: NotRequired[str]  # the second opinion: right, wrong or none


class TrainingRow(TypedDict):
    """What mid-training and SFT learn from: TRL's prompt-completion format."""

    prompt: str
    completion: str


class PreferencePair(TypedDict):
    """What Rollout DPO learns from: a question and two completions of it, under TRL's names. With a `prefix` they are
    two steps with which that beginning of a completion may go on.
    """

    prompt: str
    prefix: NotRequired[str]  # without loss; then neither side has a stop token
    chosen: str
    rejected: str


# "sampled": the primary metric; "cool": at a lower temperature; "pass": pass@k
Protocol = Literal["sampled", "cool", "greedy", "pass"]


class LadderRow(TypedDict):
    """The accuracy of one stage and arm on one benchmark: a row of ladder.json."""

    stage: str
    arm: str  # "main", "control", ...
    benchmark: str  # "easy", "hard" or "transfer"
    protocol: Protocol  # missing in the rows of release 0.1
    n: int  # samples
    correct: int
    accuracy: float  # correct / n
    ci_low: float  # 95 % interval of the accuracy
    ci_high: float
    temperature: float
    k: int  # samples a problem
    pass_at_k: float | None
    parts: dict[str, list[int]]  # [right samples, samples] of "level 3", "fractions", "first half", ...
    seconds: float  # of the stage's training
    train_tokens: int
    forward_tokens: int
    peak_rss_mb: int
    joules: NotRequired[int]
    seed: int
