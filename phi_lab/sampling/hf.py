"""The engine `hf`: transformers' `model.generate`, for any architecture, any device and adapters in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig, LogitsProcessor

from phi_lab.sampling.params import MAX_ROWS, Completion, SamplingParams, Tick

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class _LogprobRecorder(LogitsProcessor):
    """Records the log-probability of every token that `generate` chooses, holding one step's logits at a time."""

    def __init__(self, temperature: float):
        self.temperature = temperature
        self.chosen: list[torch.Tensor] = []  # of each step but the last, (rows,)
        self.current: torch.Tensor | None = None  # of all tokens at this step, (rows, vocabulary)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.current is not None:
            self.chosen.append(self._of(input_ids[:, -1]))
        self.current = (scores.float() / self.temperature).log_softmax(-1)
        return scores

    def _of(self, token: torch.Tensor) -> torch.Tensor:
        return self.current.gather(1, token[:, None])[:, 0]

    def logprobs(self, last: torch.Tensor) -> torch.Tensor:
        """(rows, steps), once the last step's tokens are known."""
        return torch.stack([*self.chosen, self._of(last)], 1)


def max_rows(config: PretrainedConfig, tokens: int, free: int, most: int) -> int:
    """How many sequences of `tokens` fit at once, `most` at most: their keys and values, in float32 at worst (peft's
    4-bit bases), may take half of the `free` bytes.
    """
    head_size = config.hidden_size // config.num_attention_heads
    bytes_per_token = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * head_size
    return max(1, min(most, free // 2 // (bytes_per_token * tokens)))


@contextmanager
def _nothing_inherited(model: PreTrainedModel) -> Iterator[None]:
    """A model without its folder's generation_config.json, whose repetition penalty, min_p and the like `generate`
    takes wherever a call says nothing else.
    """
    saved, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = saved


def generate(
    model: PreTrainedModel, prompts: list[list[int]], params: SamplingParams, stops: set[int], tick: Tick
) -> list[Completion]:
    """One completion for each of `prompts` (token ids), in left-padded batches."""
    torch.manual_seed(params.seed)
    pad, completions = min(stops), []
    rows = MAX_ROWS[model.device.type]
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        longest = max(map(len, prompts)) + params.max_tokens
        rows = max_rows(model.config, longest, torch.cuda.mem_get_info()[0], rows)
    sampling = {"do_sample": True, "temperature": params.temperature, "top_k": 0, "top_p": params.top_p}
    for first in range(0, len(prompts), rows):
        batch = prompts[first : first + rows]
        width = max(map(len, batch))
        recorder = _LogprobRecorder(params.temperature or 1.0)
        with _nothing_inherited(model):
            output = model.generate(
                input_ids=torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in batch]),
                attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch]),
                max_new_tokens=params.max_tokens, eos_token_id=sorted(stops), pad_token_id=pad,
                logits_processor=[recorder], **(sampling if params.temperature else {"do_sample": False}),
            )
        tokens = output[:, width:]
        for ids, logprobs in zip(tokens.tolist(), recorder.logprobs(tokens[:, -1]).tolist(), strict=True):
            end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
            completions.append((ids[:end], logprobs[:end]))
        tick(len(batch))
    return completions
