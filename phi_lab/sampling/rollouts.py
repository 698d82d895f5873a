"""Sampling answers: one seam, three engines.

`cpu` is ours. `model.generate` spends most of a tiny model's time on bookkeeping, so here a rollout is a plain loop
over Phi's own weights (`phi_lab/sampling/decode.py`): prompts are prefilled once and shared by all their samples, keys and
values live in a fixed cache, a finished row makes room for the next question at once, attention is compiled and reads
of each row what is there, sampling is one cumulative sum, and two halves of a large batch grow at once, in a thread
each. `hf` is `model.generate`, slower and the reference: the tests hold both to the same distribution. `vllm` is for
models that need a GPU; it was written to vLLM's documentation and has not run yet.

Log-probabilities are those of the distribution that was sampled from, that is of logits / temperature; at temperature
0 the choice is greedy and log-probabilities are those of temperature 1.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from threading import Event, Lock

import torch
from peft import PeftModel
from transformers import LogitsProcessor, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.core.errors import UserError
from phi_lab.core.progress import Bar
from phi_lab.model import chat, checkpoints
from phi_lab.sampling.decode import Phi

SPLIT = 64  # so many jobs or more are done in two halves on a CPU
SLOTS = {"cpu": 128, "cuda": 1024}  # rows that are sampled at once; the CPU's chosen by measurement (docs/log.md)


@dataclass(frozen=True)
class Sample:
    """One sampled completion: token ids (the stop token included), their log-probabilities, text without the stop
    token.
    """

    ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: str  # "stop" or "length"


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    *,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    top_p: float = 1.0,
    engine: str = "cpu",
    title: str = "rollouts",
    quiet: bool = False,
    tick: Callable[[int], object] | None = None,
) -> list[list[Sample]]:
    """`samples` completions for each question in `prompts` (plain questions, not yet in chat form).

    temperature 0 is greedy. `top_p`: only the likeliest tokens that hold so much of the probability are drawn
    (nucleus sampling, arXiv 1904.09751); log-probabilities stay those of all tokens. The same seed on the same machine
    gives the same rollouts. `tick(n)` is called when `n` more are finished, in place of an own bar. Raises UserError
    for an unknown engine.
    """
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if engine == "cpu" and model.config.model_type != "phi3":
        raise UserError(f"the engine cpu knows Phi-3 models only, not {model.config.model_type}: choose hf")
    asked = [chat.prompt_ids(tokenizer, prompt) for prompt in prompts]
    room = model.config.max_position_embeddings - max_new_tokens
    if asked and max(map(len, asked)) > room:
        raise UserError(f"a question of {max(map(len, asked))} tokens leaves no room for an answer: at most {room}")
    jobs = [asked[i] for i in range(len(asked)) for _ in range(samples)]
    stops = stop_tokens(model, tokenizer)
    bar = Bar(len(jobs), title, "rollout", quiet or tick is not None)
    was_training = model.training
    model.eval()
    merged = isinstance(model, PeftModel) and engine != "hf"  # which can run an adapter beside its base
    if merged and engine == "vllm":
        raise UserError("the engine vllm reads a folder, and an adapter in training is in none: choose hf")
    if merged and getattr(model, "is_quantized", False):
        raise UserError(f"the engine {engine} cannot sample from 4-bit weights: choose hf")
    if merged:
        model.merge_adapter()
    plain = model.get_base_model() if merged else model
    with torch.inference_mode(), plain.device if plain.device.type == "cuda" else nullcontext():  # new tensors
        done = ENGINES[engine](plain, jobs, temperature, top_p, max_new_tokens, seed, stops, tick or bar.update)
    if merged:
        model.unmerge_adapter()
    model.train(was_training)
    bar.close()
    release_memory()
    answers = [finished(tokenizer, *one, stops) for one in done]
    return [answers[i * samples : (i + 1) * samples] for i in range(len(prompts))]


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Ids that end an answer: the tokenizer's, and the model's own, of which Phi-4-mini has two."""
    ends = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, tokenizer.pad_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


def finished(tokenizer: PreTrainedTokenizerFast, ids: list[int], logprobs: list[float], stops: set[int]) -> Sample:
    """A sampled completion as a Sample."""
    stopped = ids[-1] in stops
    text = tokenizer.decode(ids[:-1] if stopped else ids)
    return Sample(ids, logprobs, text, "stop" if stopped else "length")


Raw = list[tuple[list[int], list[float]]]


class _LogprobRecorder(LogitsProcessor):
    """Log-probabilities of the tokens that `generate` chooses, one step in memory at a time."""

    def __init__(self, temperature: float):
        self.temperature, self.of_chosen, self.now = temperature, [], None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.now is not None:
            self.of_chosen.append(self.of(input_ids[:, -1]))
        self.now = (scores.float() / self.temperature).log_softmax(-1)
        return scores

    def of(self, token: torch.Tensor) -> torch.Tensor:
        """Of one token a row, at this step."""
        return self.now.gather(1, token[:, None])[:, 0]


def _rows(config: PretrainedConfig, tokens: int, free: int, most: int) -> int:
    """How many answers of `tokens` fit at once: their keys and values, in float32 at worst (peft's 4-bit bases), may
    take half of the `free` bytes.
    """
    head = config.hidden_size // config.num_attention_heads
    a_token = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * head
    return max(1, min(most, free // 2 // (a_token * tokens)))


def _sample_hf(model, jobs, temperature, top_p, max_new_tokens, seed, stops, tick: Callable[[int], object]) -> Raw:
    torch.manual_seed(seed)
    pad, done = min(stops), []
    rows = SLOTS[model.device.type]
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        rows = _rows(model.config, max(map(len, jobs)) + max_new_tokens, torch.cuda.mem_get_info()[0], rows)
    for first in range(0, len(jobs), rows):
        batch = jobs[first : first + rows]
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(job)) + job for job in batch])
        mask = torch.tensor([[0] * (width - len(job)) + [1] * len(job) for job in batch])
        settings = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": top_p}
            if temperature
            else {"do_sample": False}
        )
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, eos_token_id=sorted(stops),
            pad_token_id=pad, logits_processor=[chances := _LogprobRecorder(temperature or 1.0)], **settings,
        )
        chosen = out[:, width:]
        logprobs = torch.stack([*chances.of_chosen, chances.of(chosen[:, -1])], 1)
        for row, row_logprobs in zip(chosen.tolist(), logprobs.tolist(), strict=True):
            end = next((i + 1 for i, token in enumerate(row) if token in stops), len(row))
            done.append((row[:end], row_logprobs[:end]))
        tick(len(batch))
    return done


def _sample_cpu(model, jobs, temperature, top_p, max_new_tokens, seed, stops, tick: Callable[[int], object]) -> Raw:
    """Two halves at once: a tiny model's operations are too small for cores to share one. With one thread the same
    halves come one after the other, so a seed's rollouts do not depend on the number of threads.
    """
    if len(jobs) < SPLIT or model.device.type != "cpu":
        return _loop(model, jobs, temperature, top_p, max_new_tokens, 2 * seed, stops, tick)
    halves = [jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]]
    threads, given_up, one_at_a_time = torch.get_num_threads(), Event(), Lock()

    def counted(finished: int) -> None:
        if given_up.is_set():
            raise InterruptedError
        with one_at_a_time:
            tick(finished)

    def half(place: int) -> Raw:
        torch.set_num_threads(max(1, threads // 2))  # of this thread
        return _loop(model, halves[place], temperature, top_p, max_new_tokens, 2 * seed + place, stops, counted)

    with ThreadPoolExecutor(min(2, threads)) as pool:
        futures = [pool.submit(half, place) for place in (0, 1)]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [one for future in futures for one in future.result()]
        except BaseException:  # an error, or Ctrl-C, does not wait for the other half
            given_up.set()
            futures[1].cancel()
            raise
        finally:
            torch.set_num_threads(threads)


@torch.inference_mode()  # of this thread
def _loop(model, jobs, temperature, top_p, max_new_tokens, seed, stops, tick: Callable[[int], object]) -> Raw:
    """A slot is a row of the cache; `job[slot]` says whose answer grows there, -1 if nobody's."""
    phi = Phi(model)
    random = torch.Generator(model.device).manual_seed(seed)
    slots, room = min(SLOTS[model.device.type], len(jobs)), max(map(len, jobs)) + max_new_tokens
    cache = phi.empty_cache(slots, room)
    ids = torch.zeros(len(jobs), max_new_tokens, dtype=torch.long)
    logprobs = torch.zeros(len(jobs), max_new_tokens)
    said = torch.zeros(len(jobs), dtype=torch.long)
    job = torch.full((slots,), -1)
    length = torch.full((slots,), -1)  # tokens of the row that are in the cache; -1 as above
    token = torch.zeros(slots, dtype=torch.long)  # the last chosen token, not yet in the cache
    is_stop = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    is_stop[list(stops)] = True
    waiting = 0

    def choose(logits: torch.Tensor, rows: torch.Tensor) -> None:
        """Sample one token for each of `rows` and record it."""
        scaled = (logits / (temperature or 1.0)).log_softmax(-1)
        if temperature:  # the inverse of the cumulative distribution, a uniform number a row
            chances = scaled.exp() if top_p == 1.0 else _nucleus(scaled.exp(), top_p)
            mass = chances.cumsum(-1)
            picked = (mass < torch.rand(len(rows), 1, generator=random) * mass[:, -1:]).sum(-1)
        else:
            picked = scaled.argmax(-1)
        whose = job[rows]
        ids[whose, said[whose]] = picked
        logprobs[whose, said[whose]] = scaled.gather(1, picked[:, None])[:, 0]
        said[whose] += 1
        token[rows] = picked
        over = is_stop[picked] | (said[whose] == max_new_tokens)
        job[rows[over]] = length[rows[over]] = -1
        if over.any():
            tick(int(over.sum()))

    while waiting < len(jobs) or (job >= 0).any():
        free = (job < 0).nonzero()[:, 0]
        if waiting < len(jobs) and len(free) >= min(slots // 8 + 1, len(jobs) - waiting):
            rows = free[: len(jobs) - waiting]
            taken = list(range(waiting, waiting + len(rows)))
            waiting += len(rows)
            job[rows] = torch.tensor(taken)
            length[rows] = torch.tensor([len(jobs[i]) for i in taken])
            choose(phi.prefill([jobs[i] for i in taken], cache, rows), rows)
        elif waiting == len(jobs) and len(free) > len(job) // 16:
            count, held = len(job) - len(free), int(length.max())
            hole, last = free[free < count], (job[count:] >= 0).nonzero()[:, 0] + count  # the last rows fill the gaps
            for table in (job, length, token):
                table[hole] = table[last]
            for table in (table for pair in cache for table in pair):
                table[hole, :, :held] = table[last, :, :held]
            job, length, token = job[:count], length[:count], token[:count]
            cache = [(keys[:count], values[:count]) for keys, values in cache]
        rows = (job >= 0).nonzero()[:, 0]
        if len(rows):
            logits = phi.step(token, length, cache)
            length[rows] += 1
            choose(logits[rows], rows)
    ids, logprobs, said = ids.tolist(), logprobs.tolist(), said.tolist()
    return [(ids[i][:count], logprobs[i][:count]) for i, count in enumerate(said)]


def _nucleus(chances: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities (rows, vocabulary), zero outside the fewest tokens that hold `top_p` of them."""
    ranked, order = chances.sort(-1, descending=True)
    ranked[ranked.cumsum(-1) - ranked >= top_p] = 0
    return torch.zeros_like(chances).scatter_(-1, order, ranked)


def require_vllm() -> None:
    """Raises UserError where vLLM is not installed."""
    try:
        import vllm  # noqa: F401
    except ImportError:
        raise UserError("the engine vllm needs a GPU and pip install -c constraints.txt -e '.[gpu]'") from None


_kept: dict[tuple[str, int], object] = {}  # the one vLLM engine: starting it takes a minute


def _vllm_engine(folder: str, longest: int):
    """vLLM for the weights in `folder` and sequences of `longest` tokens, kept for the next call."""
    from vllm import LLM

    if (folder, longest) not in _kept:
        release_engine()
        _kept[folder, longest] = LLM(folder, skip_tokenizer_init=True, max_model_len=longest,
                                     logprobs_mode="processed_logprobs")
    return _kept[folder, longest]


def release_engine() -> None:
    """Give back the GPU's memory that models and vLLM's engine held."""
    _kept.clear()
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def release_memory() -> None:
    """Give freed memory back to the system. glibc keeps what other threads had: half a gigabyte after a sampling."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _sample_vllm(model, jobs, temperature, top_p, max_new_tokens, seed, stops, tick: Callable[[int], object]) -> Raw:
    """All jobs at once, by an engine that reads the weights from the folder that the model was loaded from."""
    require_vllm()
    from vllm import SamplingParams, TokensPrompt

    settings = [
        SamplingParams(
            temperature=temperature, top_p=top_p, top_k=-1, max_tokens=max_new_tokens, stop_token_ids=sorted(stops),
            logprobs=0,  # of the chosen token alone
            detokenize=False, seed=(seed * 1_000_003 + place) % 2**31,  # a seed of its own, or samples were all alike
        ) for place in range(len(jobs))
    ]
    longest = max(max(map(len, jobs)) + max_new_tokens, checkpoints.min_vllm_context(model))
    longest = min(-(-longest // 4096) * 4096, model.config.max_position_embeddings)  # so that calls share an engine
    engine = _vllm_engine(model.name_or_path, longest)
    answers = engine.generate([TokensPrompt(prompt_token_ids=job) for job in jobs], settings, use_tqdm=False)
    tick(len(jobs))
    found = [answer.outputs[0] for answer in answers]
    return [
        (list(one.token_ids), [at[token].logprob for token, at in zip(one.token_ids, one.logprobs, strict=True)])
        for one in found
    ]


ENGINES: dict[str, Callable[..., Raw]] = {"cpu": _sample_cpu, "hf": _sample_hf, "vllm": _sample_vllm}
