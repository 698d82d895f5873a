"""PPO's critic beside GRPO's group, on the same rollouts: two answers to "better than what?".

The gradient is advantage x gradient of log pi(token), and advantage = reward - baseline. Any baseline that does not
depend on the token leaves the gradient's mean as it is; a good one takes away variance. PPO learns a baseline: a critic
(here a copy of the policy with one number as its output) predicts the reward from the prompt and the tokens up to now,
so every token has a baseline of its own, and one rollout a prompt would do. GRPO measures one: the mean reward of
the prompt's other rollouts and its own; nothing is learned or stored, and a group must be sampled.

`compare` shows variance and cost of both, while the critic learns. `gae` gives advantages a token, which
`minimal_grpo.policy_loss` takes as well: with those, minimal_grpo is PPO.
"""

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab import sampling
from phi_lab.core.seeds import derive_seed
from phi_lab.problems.problem import Problem
from phi_lab.stages import minimal_grpo
from phi_lab.stages.grpo import verified
from phi_lab.stages.grpo_sampling import Reward


class Critic(nn.Module):
    """Predicts the reward of a rollout from each of its beginnings. It begins as a copy of the policy."""

    def __init__(self, policy: PreTrainedModel):
        super().__init__()
        self.body = copy.deepcopy(policy.get_decoder()).requires_grad_(True)
        self.head = nn.Linear(policy.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(rows, tokens) -> (rows, tokens - 1): column t, from the tokens up to t, is the baseline of token t + 1."""
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        return self.head(hidden)[..., 0]


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, decay: float = 1.0, discount: float = 1.0
) -> torch.Tensor:
    """Generalised advantage estimation (arXiv 1506.02438, equation 16): the advantage of each token, 0 where mask is 0.

    rewards: (rows,), given at the last token; values, mask: (rows, tokens - 1). With decay (lambda) 1 it is
    reward - value; with 0 each token answers only for the change of value that it causes, which is less noisy and wrong
    as far as the critic is.
    """
    advantages, later = torch.zeros_like(values), torch.zeros_like(rewards)
    next_value, ahead = torch.zeros_like(rewards), torch.zeros_like(rewards)  # ahead: 1 once a sampled token was passed
    for t in reversed(range(values.shape[1])):
        sampled = mask[:, t]
        reward = rewards * sampled * (1 - ahead)  # only at the last sampled token
        surprise = reward + discount * next_value - values[:, t]
        later = sampled * (surprise + discount * decay * later)
        next_value, ahead = sampled * values[:, t], torch.maximum(ahead, sampled)
        advantages[:, t] = later
    return advantages


def critic_loss(values: torch.Tensor, rewards: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean squared error over sampled tokens: every beginning shall predict the reward at the end."""
    return ((values - rewards[:, None]).square() * mask).sum() / mask.sum()


def group_mean(rewards: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """reward - mean of the group, (prompts, group): GRPO's advantages before they are divided by their spread."""
    return rewards - rewards.mean(1, keepdim=True)


def variance(advantages: torch.Tensor, mask: torch.Tensor) -> float:
    """Over all sampled tokens."""
    return float(advantages.expand_as(mask)[mask == 1].var(correction=0))


def compare(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], *, steps: int = 12,
    prompts_per_step: int = 16, group_size: int = 8, temperature: float = 1.0, max_new_tokens: int = 256,
    learning_rate: float = 3e-4, decay: float = 1.0, seed: int = 0, reward: Reward = verified,
    on_step: Callable[[dict], object] = print,
) -> list[dict]:
    """One row a step, on fresh rollouts of the unchanged policy: the variance of the rewards, of the group's advantages
    and of the critic's, and seconds: of sampling, of the group's means, of the critic.

    The critic is asked first and trained on these rollouts afterwards: it never sees a reward before it predicts it. A
    group's mean contains the rollout's own reward, which makes its variance smaller by 1 / group_size.
    """
    critic = Critic(policy)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=learning_rate, weight_decay=0.0)
    rows = []
    for step in range(steps):
        asked = [problems[(step * prompts_per_step + i) % len(problems)] for i in range(prompts_per_step)]
        params = sampling.SamplingParams(
            n=group_size, temperature=temperature, max_tokens=max_new_tokens, seed=derive_seed(seed, step)
        )
        started = time.perf_counter()
        batch, rewards = minimal_grpo.collect(policy, tokenizer, asked, params, reward, group_mean)
        sampled = time.perf_counter()
        by_group = group_mean(rewards, torch.Generator()).view(-1, 1)
        grouped = time.perf_counter()
        values = critic(batch.ids)
        by_critic = gae(rewards.flatten(), values.detach(), batch.mask, decay)
        loss = critic_loss(values, rewards.flatten(), batch.mask)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
        optimizer.step()  # the critic changes here; the policy does not
        rows.append({
            "step": step + 1, "reward_variance": variance(rewards.view(-1, 1), batch.mask),
            "group_variance": variance(by_group, batch.mask), "critic_variance": variance(by_critic, batch.mask),
            "critic_loss": loss.item(), "sampling_seconds": sampled - started, "group_seconds": grouped - sampled,
            "critic_seconds": time.perf_counter() - grouped,
        })
        on_step(rows[-1])
    return rows
