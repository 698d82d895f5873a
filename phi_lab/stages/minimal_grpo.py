"""GRPO in one sitting, without TRL: sample, verify, advantage, log-probabilities, clipped token loss, step.

`train` at the end of this page is all of it; the functions above it are its lines, in the order in which it calls them.
`grpo.py` does the same for longer, with Muon, a choice of prompts and several GPUs. A test holds this page's loss and
gradient to TRL's (tests/stages/test_minimal_grpo.py).

Why does a ratio of 1 have a gradient? At the first step on a batch the model is the one that sampled it, so every
ratio = exp(new - old) is exp(0) = 1, and the loss is -mean(advantage), whatever the tokens are. But `old` is a
constant and `new` is not: the derivative of exp(new - old) is exp(new - old) times the gradient of `new`, which at
ratio 1 is the gradient of log pi itself. So the step is REINFORCE's, advantage x gradient of log pi(token). A loss is
a number whose *gradient* is wanted; its value says little. (With `new` in place of `old` nothing would be learned.)

    model, tokenizer = checkpoints.load(folder), checkpoints.load_tokenizer(folder)
    minimal_grpo.train(model, tokenizer, arithmetic.sample_problems(384, seed=1))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab import sampling
from phi_lab.core.seeds import derive_seed
from phi_lab.model import chat
from phi_lab.problems.problem import Problem
from phi_lab.stages.grpo import rebalance, verified
from phi_lab.stages.grpo_sampling import Reward
from phi_lab.stages.grpo_trainer import Advantage


@dataclass(frozen=True)
class Batch:
    """Rollouts as tensors. A row is a prompt, its completion, and padding; column t of the last three belongs to token
    t + 1, since nothing predicts the first.
    """

    ids: torch.Tensor  # (rows, tokens)
    mask: torch.Tensor  # (rows, tokens - 1): 1 where a token was sampled, 0 on prompt and padding
    old: torch.Tensor  # (rows, tokens - 1): log-probability under the model that sampled, 0 on prompt and padding
    advantages: torch.Tensor  # (rows, 1), the same for every token of a completion; or (rows, tokens - 1)


# ------------------------------------------------------------------ sample, verify, advantage


def collect(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem],
    params: sampling.SamplingParams, reward: Reward, advantage: Advantage,
) -> tuple[Batch, torch.Tensor]:
    """`params.n` rollouts of each problem with their advantages; and their rewards, (problems, n)."""
    groups = sampling.sample(model, tokenizer, [problem.prompt for problem in problems], params, quiet=True)
    texts = [rollout.text for group in groups for rollout in group]
    rewards = torch.tensor(reward(texts, [problem.answer for problem in problems for _ in range(params.n)]))
    rewards = rewards.view(len(problems), params.n)
    advantages = advantage(rewards, torch.Generator().manual_seed(params.seed))
    prompts = [chat.prompt_ids(tokenizer, problem.prompt) for problem in problems for _ in range(params.n)]
    return to_batch(prompts, [rollout for group in groups for rollout in group], advantages.view(-1, 1)), rewards


def to_batch(prompts: Sequence[list[int]], rollouts: Sequence[sampling.Sample], advantages: torch.Tensor) -> Batch:
    """Rows padded on the right with zeros. Attention is causal, so no sampled token sees the padding."""

    def padded(rows: list[list], dtype: torch.dtype) -> torch.Tensor:
        return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True)

    both = list(zip(prompts, rollouts, strict=True))
    return Batch(
        padded([prompt + rollout.ids for prompt, rollout in both], torch.long),
        padded([[0.0] * (len(prompt) - 1) + [1.0] * len(rollout.ids) for prompt, rollout in both], torch.float),
        padded([[0.0] * (len(prompt) - 1) + rollout.logprobs for prompt, rollout in both], torch.float),
        advantages,
    )


# ------------------------------------------------------------------ log-probabilities, loss


def token_logprobs(model: PreTrainedModel, ids: torch.Tensor, temperature: float) -> torch.Tensor:
    """log pi(token | all tokens before it) of each token but the first, (rows, tokens - 1).

    Rollouts were drawn from softmax(logits / temperature), so this is the distribution whose log-probabilities count:
    at another temperature no ratio would be 1, although the model is the same.
    """
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1] / temperature
    return logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]


def clipped_token_loss(new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, epsilon: float) -> torch.Tensor:
    """-min(ratio x advantage, clipped ratio x advantage) of each token (arXiv 1707.06347, equation 7).

    The minimum drops the gradient where the ratio has already moved by more than epsilon *in the advantage's
    direction*, and keeps it where the ratio went the wrong way.
    """
    ratio = (new - old).exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)


def token_mean(losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """DAPO's: each token of the batch counts the same, so long completions count more (arXiv 2503.14476)."""
    return (losses * mask).sum() / mask.sum()


def constant_length_mean(max_new_tokens: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Dr. GRPO's: the sum of each completion by the same constant, its longest possible length (arXiv 2503.20783)."""
    return lambda losses, mask: (losses * mask).sum() / (len(losses) * max_new_tokens)


def policy_loss(
    model: PreTrainedModel, batch: Batch, temperature: float, epsilon: float = 0.2, mean: Callable = token_mean
) -> torch.Tensor:
    """The loss of a batch of rollouts that were sampled at `temperature`."""
    new = token_logprobs(model, batch.ids, temperature)
    return mean(clipped_token_loss(new, batch.old, batch.advantages, epsilon), batch.mask)


# ------------------------------------------------------------------ the loop


def train(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], *, steps: int = 24,
    prompts_per_step: int = 16, group_size: int = 8, temperature: float = 1.0, max_new_tokens: int = 256,
    learning_rate: float = 3e-4, updates: int = 1, seed: int = 0, reward: Reward = verified,
    advantage: Advantage = rebalance, mean: Callable = token_mean, on_step: Callable[[dict], object] = print,
) -> list[dict]:
    """Train `model` in place on its own rollouts; returns one row of metrics a step, and gives each to `on_step`.
    updates: gradient steps on one batch of rollouts; from the second on ratios differ from 1 and are clipped.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    rows = []
    for step in range(steps):
        asked = [problems[(step * prompts_per_step + i) % len(problems)] for i in range(prompts_per_step)]
        params = sampling.SamplingParams(
            n=group_size, temperature=temperature, max_tokens=max_new_tokens, seed=derive_seed(seed, step)
        )
        batch, rewards = collect(model, tokenizer, asked, params, reward, advantage)
        row = {"step": step + 1, "reward": rewards.mean().item(), "mean_length": batch.mask.sum(1).mean().item()}
        kept = batch.advantages[:, 0] != 0  # the other rows have no gradient, only cost
        batch = Batch(batch.ids[kept], batch.mask[kept], batch.old[kept], batch.advantages[kept])
        for _ in range(updates if kept.any() else 0):
            loss = policy_loss(model, batch, temperature, mean=mean)
            optimizer.zero_grad()
            loss.backward()
            row["grad_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
            optimizer.step()  # the policy changes here
        rows.append({**row, "kept_share": kept.float().mean().item()})
        on_step(rows[-1])
    return rows
