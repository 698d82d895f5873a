"""The engine `cpu`: a decoding loop for Phi models that are too small for `model.generate`.

`model.generate` spends most of a tiny model's time on bookkeeping. Here a rollout is a plain loop over Phi's weights
(phi_lab/sampling/decode.py): a prompt is prefilled once and shared by all its samples, keys and values lie in a fixed
cache, a finished row takes the next prompt at once (continuous batching), attention is compiled and reads of each row
only what is there, sampling is one cumulative sum, and two halves of a large batch are decoded at once, in a thread
each.
"""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event, Lock
from typing import TYPE_CHECKING

import torch

from phi_lab.sampling.decode import Phi
from phi_lab.sampling.params import MAX_ROWS, Completion, SamplingParams, Tick

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIN_SPLIT = 64  # on a CPU, this many completions or more are sampled in two halves


def generate(
    model: PreTrainedModel, prompts: list[list[int]], params: SamplingParams, stops: set[int], tick: Tick
) -> list[Completion]:
    """One completion for each of `prompts` (token ids).

    Two halves at once: a tiny model's operations are too small for cores to share one. With one thread the same halves
    come one after the other, so a seed's rollouts do not depend on the number of threads.
    """
    seeds = [replace(params, seed=2 * params.seed + half) for half in (0, 1)]
    if len(prompts) < MIN_SPLIT or model.device.type != "cpu":
        return _decode(model, prompts, seeds[0], stops, tick)
    halves = [prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]]
    threads, stopped, lock = torch.get_num_threads(), Event(), Lock()

    def locked_tick(finished: int) -> None:
        if stopped.is_set():
            raise InterruptedError
        with lock:
            tick(finished)

    def decode_half(half: int) -> list[Completion]:
        torch.set_num_threads(max(1, threads // 2))  # of this thread
        return _decode(model, halves[half], seeds[half], stops, locked_tick)

    with ThreadPoolExecutor(min(2, threads)) as pool:
        futures = [pool.submit(decode_half, half) for half in (0, 1)]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [completion for future in futures for completion in future.result()]
        except BaseException:  # an error, or Ctrl-C, does not wait for the other half
            stopped.set()
            futures[1].cancel()
            raise
        finally:
            torch.set_num_threads(threads)


@torch.inference_mode()  # of this thread
def _decode(
    model: PreTrainedModel, prompts: list[list[int]], params: SamplingParams, stops: set[int], tick: Tick
) -> list[Completion]:
    batch = _Batch(model, prompts, params, stops, tick)
    while batch.unfinished():
        batch.refill_or_shrink()
        batch.step()
    return batch.completions()


class _Batch:
    """Completions that grow in the rows of one cache. `prompt[row]` is the index of the prompt that a row answers, -1
    where the row is idle.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: list[list[int]], params: SamplingParams, stops: set[int], tick: Tick
    ):
        self.phi, self.prompts, self.params, self.tick = Phi(model), prompts, params, tick
        self.random = torch.Generator(model.device).manual_seed(params.seed)
        self.max_rows = min(MAX_ROWS[model.device.type], len(prompts))
        self.cache = self.phi.empty_cache(self.max_rows, max(map(len, prompts)) + params.max_tokens)
        self.is_stop = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        self.is_stop[list(stops)] = True
        self.started = 0  # how many prompts have been given a row
        # of each row
        self.prompt = torch.full((self.max_rows,), -1)
        self.length = torch.full((self.max_rows,), -1)  # tokens in the cache; -1 where idle
        self.token = torch.zeros(self.max_rows, dtype=torch.long)  # the last chosen, not yet in the cache
        # of each completion
        self.ids = torch.zeros(len(prompts), params.max_tokens, dtype=torch.long)
        self.logprobs = torch.zeros(len(prompts), params.max_tokens)
        self.count = torch.zeros(len(prompts), dtype=torch.long)

    def unfinished(self) -> bool:
        return self.started < len(self.prompts) or bool((self.prompt >= 0).any())

    def refill_or_shrink(self) -> None:
        """Give idle rows the next prompts once an eighth of the rows is idle; drop idle rows once no prompt waits."""
        idle, waiting = (self.prompt < 0).nonzero()[:, 0], len(self.prompts) - self.started
        if waiting and len(idle) >= min(self.max_rows // 8 + 1, waiting):
            self._refill(idle[:waiting])
        elif not waiting and len(idle) > len(self.prompt) // 16:
            self._shrink(idle)

    def _refill(self, rows: torch.Tensor) -> None:
        chosen = range(self.started, self.started + len(rows))
        self.started += len(rows)
        self.prompt[rows] = torch.tensor(chosen)
        self.length[rows] = torch.tensor([len(self.prompts[i]) for i in chosen])
        self._choose(self.phi.prefill([self.prompts[i] for i in chosen], self.cache, rows), rows)

    def _shrink(self, idle: torch.Tensor) -> None:
        """Move the last rows into the idle ones before them, and cut the batch and its cache behind them."""
        count, reach = len(self.prompt) - len(idle), int(self.length.max())
        hole, last = idle[idle < count], (self.prompt[count:] >= 0).nonzero()[:, 0] + count
        for state in (self.prompt, self.length, self.token):
            state[hole] = state[last]
        for tensor in (tensor for pair in self.cache for tensor in pair):
            tensor[hole, :, :reach] = tensor[last, :, :reach]
        self.prompt, self.length, self.token = self.prompt[:count], self.length[:count], self.token[:count]
        self.cache = [(keys[:count], values[:count]) for keys, values in self.cache]

    def step(self) -> None:
        """One more token for every row that is not idle."""
        rows = (self.prompt >= 0).nonzero()[:, 0]
        if len(rows):
            logits = self.phi.step(self.token, self.length, self.cache)
            self.length[rows] += 1
            self._choose(logits[rows], rows)

    def _choose(self, logits: torch.Tensor, rows: torch.Tensor) -> None:
        """Sample a token for each of `rows` from its logits (rows, vocabulary), record it, and free finished rows."""
        temperature, top_p = self.params.temperature, self.params.top_p
        logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
        if temperature:  # the inverse of the cumulative distribution, at one uniform number a row
            probabilities = logprobs.exp() if top_p == 1.0 else _nucleus(logprobs.exp(), top_p)
            mass = probabilities.cumsum(-1)
            token = (mass < torch.rand(len(rows), 1, generator=self.random) * mass[:, -1:]).sum(-1)
        else:
            token = logprobs.argmax(-1)
        prompt = self.prompt[rows]
        self.ids[prompt, self.count[prompt]] = token
        self.logprobs[prompt, self.count[prompt]] = logprobs.gather(1, token[:, None])[:, 0]
        self.count[prompt] += 1
        self.token[rows] = token
        finished = self.is_stop[token] | (self.count[prompt] == self.params.max_tokens)
        self.prompt[rows[finished]] = self.length[rows[finished]] = -1
        if finished.any():
            self.tick(int(finished.sum()))

    def completions(self) -> list[Completion]:
        ids, logprobs = self.ids.tolist(), self.logprobs.tolist()
        return [(ids[i][:count], logprobs[i][:count]) for i, count in enumerate(self.count.tolist())]


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities (rows, vocabulary), zero outside the fewest tokens that hold `top_p` of them."""
    ranked, order = probabilities.sort(-1, descending=True)
    ranked[ranked.cumsum(-1) - ranked >= top_p] = 0
    return torch.zeros_like(probabilities).scatter_(-1, order, ranked)
