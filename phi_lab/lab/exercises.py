"""Reference answers of the exercises that are no part of a stage; pack, pair, ... stand in their stage's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import Phi3Config


def share_right(verdicts: Sequence[str]) -> float:
    """The share of verdicts that are "right", 0 to 1. Everything else counts as not right, whatever the reason."""
    return sum(verdict == "right" for verdict in verdicts) / len(verdicts)


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
