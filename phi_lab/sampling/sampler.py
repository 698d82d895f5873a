"""Sampling answers: `sample` is the one function that everything calls, with a choice of three engines.

`cpu` is a decoding loop for the small models of this course, with which `model.generate` is slow. `hf` is
`model.generate`, the reference: the tests hold both to the same distribution. `vllm` is for models that need a GPU.

Log-probabilities are those of the distribution that was sampled from, that is of logits / temperature; at temperature
0 the choice is greedy and log-probabilities are those of temperature 1.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import torch

from phi_lab.core.errors import UserError
from phi_lab.core.progress import Bar
from phi_lab.model import chat
from phi_lab.sampling import cpu, hf, vllm
from phi_lab.sampling.params import Completion, Sample, SamplingParams, Tick

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Each takes (model, prompts as token ids, params, stop tokens, tick) and returns one completion a prompt, in order;
# `sample` has already repeated each prompt params.n times.
ENGINES: dict[str, Callable[..., list[Completion]]] = {"cpu": cpu.generate, "hf": hf.generate, "vllm": vllm.generate}


def sample(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    params: SamplingParams,
    *,
    engine: str = "cpu",
    title: str = "rollouts",
    quiet: bool = False,
    tick: Tick | None = None,
) -> list[list[Sample]]:
    """Sample `params.n` completions for each of `prompts` (plain questions, not yet in chat format).

    title: of the progress bar, which `quiet` hides and `tick` replaces. Raises UserError for an unknown engine, for a
    model that the engine cannot run, and for a prompt that leaves no room for `params.max_tokens` in the context.
    """
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if engine == "cpu" and model.config.model_type != "phi3":
        raise UserError(f"the engine cpu knows Phi-3 models only, not {model.config.model_type}: choose hf")
    ids = [chat.prompt_ids(tokenizer, prompt) for prompt in prompts]
    limit = model.config.max_position_embeddings - params.max_tokens
    if ids and max(map(len, ids)) > limit:
        raise UserError(f"a question of {max(map(len, ids))} tokens leaves no room for an answer: at most {limit}")
    repeated = [prompt for prompt in ids for _ in range(params.n)]
    stops = stop_tokens(model, tokenizer)
    with Bar(len(repeated), title, "rollout", quiet or tick is not None) as bar, _prepared(model, engine) as plain:
        completions = ENGINES[engine](plain, repeated, params, stops, tick or bar.update)
    release_memory()
    samples = [to_sample(tokenizer, *completion, stops) for completion in completions]
    return [samples[i * params.n : (i + 1) * params.n] for i in range(len(prompts))]


def engine_for(model: PreTrainedModel | PeftModel) -> str:
    """The engine that a model needs on a CPU where none is named: `cpu` for a Phi, `hf` for other architectures."""
    return "cpu" if model.config.model_type == "phi3" else "hf"


@contextmanager
def _prepared(model: PreTrainedModel | PeftModel, engine: str) -> Iterator[PreTrainedModel]:
    """The model as an engine needs it: in evaluation mode, new tensors on its device, an adapter merged into its base
    unless the engine is `hf`, which runs it beside the base. Afterwards the model is as it was before.
    """
    merged = hasattr(model, "merge_adapter") and engine != "hf"  # peft's models, without loading peft
    if merged and engine == "vllm":
        raise UserError("the engine vllm reads a folder, and an adapter in training is in none: choose hf")
    if merged and getattr(model, "is_quantized", False):
        raise UserError(f"the engine {engine} cannot sample from 4-bit weights: choose hf")
    was_training = model.training
    model.eval()
    if merged:
        model.merge_adapter()
    plain = model.get_base_model() if merged else model
    try:
        with torch.inference_mode(), plain.device if plain.device.type == "cuda" else nullcontext():
            yield plain
    finally:
        if merged:
            model.unmerge_adapter()
        model.train(was_training)


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Ids that end a completion: the tokenizer's, and the model's, of which Phi-4-mini has two."""
    ends = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, tokenizer.pad_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


def to_sample(tokenizer: PreTrainedTokenizerFast, ids: list[int], logprobs: list[float], stops: set[int]) -> Sample:
    """A completion as a Sample: its text, and whether it ended by a stop token or at the limit. Where the chat template
    opened the thought, the text begins with its <think>: without it a thought that was cut reads like an answer.
    """
    stopped = ids[-1] in stops
    text = tokenizer.decode(ids[:-1] if stopped else ids)
    if chat.opens_thought(tokenizer) and not text.lstrip().startswith(chat.THINK):
        text = chat.THINK + text
    return Sample(ids, logprobs, text, "stop" if stopped else "length")


def release_memory() -> None:
    """Give freed memory back to the system: glibc holds on to what other threads had, half a gigabyte a sampling."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
