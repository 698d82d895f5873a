"""One completion, one token at a time, with a cache of keys and values: decoding on one page.

Without a cache every new token would send the whole text through the model again. A token's keys and values depend only
on what comes before it, so they are computed once and kept. `cpu.py` does the same
for a hundred completions at once; a test holds both, and transformers' `generate`, to the same tokens
(tests/sampling/test_minimal_decode.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def choose_token(logits: torch.Tensor, temperature: float, random: torch.Generator) -> int:
    """The next token from logits (vocabulary,): the likeliest at temperature 0, else drawn from softmax(logits / T), as
    the first token whose cumulative probability reaches a number drawn between 0 and 1.
    """
    if temperature == 0:
        return int(logits.argmax())
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    return int((cumulative < torch.rand(1, generator=random) * cumulative[-1]).sum())


@torch.inference_mode()
def decode(
    model: PreTrainedModel, prompt: list[int], max_tokens: int, stops: set[int], temperature: float = 0.0,
    seed: int = 0, use_cache: bool = True,
) -> list[int]:
    """Token ids of one completion of `prompt` (token ids), with its stop token. Without the cache the tokens are the
    same, and take longer.
    """
    random, cache = torch.Generator().manual_seed(seed), DynamicCache(config=model.config)
    unread, completion = list(prompt), []  # unread: tokens whose keys and values are not in the cache yet
    while len(completion) < max_tokens and not (completion and completion[-1] in stops):
        if not use_cache:
            unread, cache = prompt + completion, DynamicCache(config=model.config)
        # The prefill, then one token: its query meets the keys of all before it, and its own keys are appended.
        read = cache.get_seq_length()
        positions = torch.arange(read, read + len(unread))[None]
        output = model(input_ids=torch.tensor([unread]), position_ids=positions, past_key_values=cache)
        completion.append(choose_token(output.logits[0, -1], temperature, random))
        unread = completion[-1:]
    return completion
