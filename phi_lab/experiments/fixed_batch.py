"""Training on rollouts that are there already, with a loss of each token: GRPO and distillation on one page.

Both take the student's own rollouts and differ in what a token is told. GRPO: the advantage of its whole answer, times
the ratio of its probability to the one it was sampled with, clipped (arXiv 1707.06347, as TRL computes it).
Distillation, with on-policy distillation's loss: the reverse KL divergence of the student from the teacher at that
token, over the whole vocabulary (arXiv 2306.13649; TRL's GKDTrainer with beta = 1, whose loss a test holds this to).
TRL's trainers sample for themselves at every step; an experiment that gives every arm the same rollouts needs a loop
that does not. An arm takes a minute or two, so a stopped one begins again.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from phi_lab.core.files import remove_folder, replace_folder, write_rows
from phi_lab.core.progress import Bar
from phi_lab.core.run_folder import StageFolder
from phi_lab.model import checkpoints
from phi_lab.stages.minimal_grpo import clipped_token_loss, token_logprobs
from phi_lab.stages.muon import Muon
from phi_lab.stages.training import TrainingResult, mark_finished

ROWS = 16  # rollouts in one forward and backward pass


@dataclass(frozen=True)
class Example:
    """A rollout as token ids; the completion has its stop token. old: the log-probability of each token of the
    completion when it was sampled, in nats; GRPO's alone.
    """

    prompt: list[int]
    completion: list[int]
    advantage: float = 0.0
    old: tuple[float, ...] = ()

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class Batch:
    """Examples side by side; all (rows, tokens), advantages (rows, 1). mask: 1 on the completion. old: 0 elsewhere."""

    ids: torch.Tensor
    mask: torch.Tensor
    old: torch.Tensor
    advantages: torch.Tensor


TokenLoss = Callable[[PreTrainedModel, Batch], torch.Tensor]  # -> (rows, tokens - 1), of each token but the first


def to_batch(examples: Sequence[Example]) -> Batch:
    """The examples, padded on the right."""

    def padded(rows: list[list]) -> torch.Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)

    return Batch(
        padded([one.prompt + one.completion for one in examples]),
        padded([[0.0] * len(one.prompt) + [1.0] * len(one.completion) for one in examples]),
        padded([[0.0] * len(one.prompt) + list(one.old or [0.0] * len(one.completion)) for one in examples]),
        torch.tensor([[one.advantage] for one in examples]),
    )


def policy_gradient(temperature: float, epsilon: float) -> TokenLoss:
    """GRPO's clipped loss of each token, with logits divided by the temperature of sampling."""

    def loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        new = token_logprobs(model, batch.ids, temperature)
        return clipped_token_loss(new, batch.old[:, 1:], batch.advantages, epsilon)

    return loss


def reverse_kl(teacher: PreTrainedModel) -> TokenLoss:
    """KL(student || teacher) at each token, in nats: sum over the vocabulary of p (log p - log q)."""

    def loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        log_p = model(input_ids=batch.ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        with torch.no_grad():
            log_q = teacher(input_ids=batch.ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    return loss


def scored(model: PreTrainedModel, examples: Sequence[Example], temperature: float) -> list[tuple[float, ...]]:
    """The log-probability of each token of every example's completion, in nats, at `temperature`."""
    found: list[tuple[float, ...]] = [()] * len(examples)
    order = sorted(range(len(examples)), key=lambda index: examples[index].tokens)
    for first in range(0, len(order), 4 * ROWS):
        indices = order[first : first + 4 * ROWS]
        with torch.no_grad():
            values = token_logprobs(model, to_batch([examples[index] for index in indices]).ids, temperature)
        for index, row in zip(indices, values.tolist(), strict=True):
            one = examples[index]
            found[index] = tuple(row[len(one.prompt) - 1 : one.tokens - 1])
    return found


def batches(examples: Sequence[Example], size: int, compute: float, per_token: float, seed: int) -> list[list[Example]]:
    """Batches of `size` until they cost `compute` training tokens, `per_token` each; every example is used once before
    any is used again, in an order of its own each time. At least one.
    """
    rng, made, spent, waiting = random.Random(seed), list[list[Example]](), 0.0, list[Example]()
    while True:
        while len(waiting) < size:
            waiting += rng.sample(examples, len(examples))
        batch, waiting = waiting[:size], waiting[size:]
        cost = per_token * sum(one.tokens for one in batch)
        if made and spent + cost / 2 > compute:  # the nearest number of steps
            return made
        made.append(batch)
        spent += cost


def train(
    student: Path, steps: Sequence[Sequence[Example]], loss: TokenLoss, out: Path, *, learning_rate: float,
    lr_schedule: str, read: int, title: str,
) -> TrainingResult:
    """Train the model in `student` on `steps`, a batch each, with Muon; it is saved in `out/model`.

    The loss is the mean of `loss` over the completions' tokens of a batch. lr_schedule: "linear" or "cosine", to zero,
    without a warm-up. read: tokens that were or will be read without a gradient, for the result.
    """
    model, tokenizer = checkpoints.load(student), checkpoints.load_tokenizer(student)
    optimizer, began, rows = Muon(model, learning_rate, weight_decay=0.0), time.perf_counter(), list[dict]()
    tokens = 0
    with Bar(len(steps), title, "step") as bar:
        for number, batch in enumerate(steps):
            done = number / len(steps)
            factor = 1 - done if lr_schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * factor
            count, total = sum(len(one.completion) for one in batch), 0.0
            by_length = sorted(batch, key=lambda one: one.tokens)
            for first in range(0, len(by_length), ROWS):
                part = to_batch(by_length[first : first + ROWS])
                value = (loss(model, part) * part.mask[:, 1:]).sum() / count
                value.backward()
                total += value.item()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()  # the policy changes here
            optimizer.zero_grad()
            tokens += sum(one.tokens for one in batch)
            rows.append({"step": number + 1, "loss": total, "learning_rate": learning_rate * factor,
                         "grad_norm": float(norm), "tokens": tokens,
                         "seconds": round(time.perf_counter() - began, 2)})
            bar.update(1)
    folder, beside = StageFolder(out), out / "model.part"
    remove_folder(beside)
    checkpoints.save(model, tokenizer, beside)
    replace_folder(beside, folder.model)
    write_rows(folder.metrics, rows)
    result = TrainingResult(folder.model, rows, time.perf_counter() - began, tokens, read)
    mark_finished(folder, result)
    return result
