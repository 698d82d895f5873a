"""What goes into sampling and what comes out: parameters under vLLM's names, completions, the engines' common form."""

from collections.abc import Callable
from dataclasses import dataclass

MAX_ROWS = {"cpu": 128, "cuda": 1024}  # sequences decoded at once; the CPU's chosen by measurement (docs/log.md)

Completion = tuple[list[int], list[float]]  # token ids with the stop token, and their log-probabilities
Tick = Callable[[int], object]  # called with the number of completions that have just finished


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How completions are sampled.

    n: completions for each prompt. temperature: 0 is greedy. top_p: only the likeliest tokens that hold this share of
    the probability are drawn (nucleus sampling, arXiv 1904.09751); log-probabilities stay those of all tokens, but for
    the engine vllm's, which are those among the tokens that are left.
    max_tokens: limit of a completion, the stop token included. seed: the same one gives the same rollouts on the same
    machine.
    """

    n: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """One sampled completion: token ids with the stop token, their log-probabilities, the text without it (it has
    the <think> that a chat template wrote).
    """

    ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: str  # "stop" or "length"
