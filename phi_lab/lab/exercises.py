"""Reference answers of the exercises that are no part of a stage; pack, pair, ... stand in their stage's file.

They are written to be read by somebody who has just tried it. torch is imported where it is called, so that a page
starts without it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import Phi3Config


def share_right(verdicts: Sequence[str]) -> float:
    """The share of verdicts that are "right", 0 to 1. Everything else counts as not right, whatever the reason."""
    return sum(verdict == "right" for verdict in verdicts) / len(verdicts)


def first_slip(columns: Sequence[str]) -> int | None:
    """The index of the first column whose own sum is wrong, such as "7+8=16"; None where all are right."""
    for place, column in enumerate(columns):
        terms, _, written = column.partition("=")
        if written and sum(int(term) for term in re.findall(r"[-+]?\d+", terms)) != int(written):
            return place
    return None


def flips(before: Sequence[str], after: Sequence[str]) -> tuple[int, int]:
    """(gained, lost): how many problems became right and how many stopped being so."""
    pairs = [(old == "right", new == "right") for old, new in zip(before, after, strict=True)]
    return pairs.count((False, True)), pairs.count((True, False))


def count_parameters(config: Phi3Config) -> int:
    """The weights of a Phi-3 model with tied embeddings, from its configuration alone."""
    hidden, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    width = hidden // heads
    attention = hidden * (heads + 2 * groups) * width + heads * width * hidden  # q, k and v; then the output
    mlp = 3 * hidden * config.intermediate_size  # gate, up, down
    return config.vocab_size * hidden + config.num_hidden_layers * (attention + mlp + 2 * hidden) + hidden  # norms


def mixed_share(rewards: torch.Tensor) -> float:
    """The share of groups (rows) that hold a right and a wrong answer: the only ones that GRPO learns from."""
    right = rewards > 0
    return float((right.any(1) & ~right.all(1)).float().mean())


def temperature(step: int, steps: int) -> float:
    """Sampling temperature at `step`, 0 to steps - 1: 1.0 at 0, linearly down to 0.6 at steps / 2, then 0.6."""
    return 1.0 - 0.4 * min(1.0, step / (steps / 2))


def keep_questions(rollouts: Sequence[tuple[str, str]], low: float, high: float) -> set[str]:
    """The questions whose share of right rollouts is at least `low` and at most `high`; a rollout is (question,
    verdict).
    """
    verdicts: dict[str, list[str]] = {}
    for question, verdict in rollouts:
        verdicts.setdefault(question, []).append(verdict)
    return {question for question, group in verdicts.items() if low <= group.count("right") / len(group) <= high}


def labels(prompt: Sequence[int], completion: Sequence[int], width: int) -> list[int]:
    """The labels of one row: -100, no loss, on prompt and padding, the token's own id on the completion."""
    return [-100] * len(prompt) + list(completion) + [-100] * (width - len(prompt) - len(completion))


def position_ids(lengths: Sequence[int]) -> list[int]:
    """The positions of the tokens of a packed row whose documents have these lengths: each document begins at 0."""
    return [position for length in lengths for position in range(length)]


def rate_factor(step: int, steps: int) -> float:
    """The factor on the learning rate at `step`, 0 to steps - 1: 1 until the last fifth, which falls linearly; it would
    be 0 at step `steps`.
    """
    return min(1.0, (steps - step) / (steps / 5))


def hardest_first(rows: Sequence[dict], count: int) -> list[dict]:
    """At most `count` rows: those of the questions (`id`) with the lowest `pass_rate` first, at most three of each."""
    taken, of_question = [], Counter[str]()
    for row in sorted(rows, key=lambda row: row["pass_rate"]):
        if len(taken) < count and of_question[row["id"]] < 3:
            taken.append(row)
            of_question[row["id"]] += 1
    return taken


def paired_gain(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of the differences after - before on the same problems: the mean and its 95 % interval."""
    gains = [new - old for old, new in zip(before, after, strict=True)]
    mean = sum(gains) / len(gains)
    deviation = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1))
    half = 1.96 * deviation / math.sqrt(len(gains))
    return mean, mean - half, mean + half


def plausible(wrong: Sequence[dict], logprobs: Sequence[float], max_nll: float) -> list[dict]:
    """The wrong answers that the student writes at least once in exp(max_nll) times: log-probability >= -max_nll."""
    return [row for row, logprob in zip(wrong, logprobs, strict=True) if logprob >= -max_nll]


def sequence_logprob(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log pi(answer | question) of each row, in nats: the sum over its tokens with mask 1. logits: (rows, tokens,
    vocabulary), those at t are about token t + 1; ids, mask: (rows, tokens).
    """
    logprobs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return (logprobs * mask[:, 1:]).sum(1)


def cache_step(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(what one new token reads, the longer keys, the longer values). query, key, value: (width,), of the new token;
    keys, values: (tokens, width), of those before it.
    """
    import torch

    keys, values = torch.cat([keys, key[None]]), torch.cat([values, value[None]])
    weights = (keys @ query / math.sqrt(len(query))).softmax(0)
    return weights @ values, keys, values


def group_advantage(rewards: torch.Tensor) -> torch.Tensor:
    """(reward - mean) / standard deviation within each group (row), 0 where all rewards are equal. The standard
    deviation is that of the group itself (divided by n).
    """
    spread = rewards.std(1, keepdim=True, correction=0)
    return (rewards - rewards.mean(1, keepdim=True)) / spread.where(spread > 0, 1.0)


def policy_gradient_loss(new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """-ratio x advantage, averaged over tokens; ratio = pi_new / pi_old. new, old: log-probabilities (tokens,)."""
    return -((new - old).exp() * advantages).mean()


def clipped(ratio: torch.Tensor, advantages: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The smaller of ratio x advantage and clipped ratio x advantage, for each token."""
    import torch

    return torch.min(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)


def two_means(losses: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean over all tokens, mean over completions of each one's own mean). losses, mask: (completions, tokens)."""
    total, tokens = (losses * mask).sum(1), mask.sum(1)
    return total.sum() / tokens.sum(), (total / tokens).mean()


def dpo_loss(
    policy: tuple[torch.Tensor, torch.Tensor], reference: tuple[torch.Tensor, torch.Tensor], beta: float
) -> torch.Tensor:
    """-log sigmoid(beta x (how much more the chosen one rose than the rejected one)). policy, reference:
    log-probabilities of (chosen, rejected), tensors of shape (pairs,).
    """
    import torch

    chosen, rejected = (now - before for now, before in zip(policy, reference, strict=True))
    return -torch.nn.functional.logsigmoid(beta * (chosen - rejected)).mean()
