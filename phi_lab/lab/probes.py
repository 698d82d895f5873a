"""Probes of a policy-gradient loop: five rewards whose effect is known beforehand, each in seconds.

A flat reward has many causes. Before one blames the model, one gives the loop a task that it cannot fail unless the
loop is wrong. Each probe is a lesson for a notebook, and a test of `minimal_grpo` (tests/lab/test_probes.py).

    probes.constant_reward(model, tokenizer)    # a reward that says nothing: exactly no gradient
    probes.one_token(model, tokenizer)          # a reward for one token: learned
    probes.length(model, tokenizer)             # a reward for length: length moves
    probes.carry(model, tokenizer)              # a reward that comes a token later: learned only by credit over time
    probes.coin(model, tokenizer)               # a reward that is a coin's: no gain, but for lucky seeds

model: the course's `base`; it is copied, not changed. Each probe trains it for a moment to answer one question with
random digits (`digits_policy`): whatever it writes later, the reward made it so.
"""

import copy
import random
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab import sampling
from phi_lab.core.seeds import derive_seed
from phi_lab.problems.problem import Problem
from phi_lab.stages import minimal_grpo, minimal_lm
from phi_lab.stages.grpo import group_normalised
from phi_lab.stages.packing import document

SUM = Problem("arithmetic", "expression", 1, "7+8", "Compute 7+8.", "15")
MAX_TOKENS = 10
TextReward = Callable[[str], float]


def digits_policy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> PreTrainedModel:
    """A copy of `model` that was trained for a moment to answer SUM with any of `texts`: it writes their digits by
    chance.
    """
    policy = copy.deepcopy(model)
    documents = [document(tokenizer, SUM.prompt, text) for text in texts]
    rows = [[index] for index in range(len(documents))]
    minimal_lm.train(policy, documents, rows, steps=40, batch_size=len(rows), learning_rate=1e-3, on_step=_quietly)
    return policy


def random_numbers(count: int = 32) -> list[str]:
    """Numbers of one to five random digits."""
    rng = random.Random(0)
    return ["".join(rng.choices("0123456789", k=rng.randint(1, 5))) for _ in range(count)]


def _train(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, reward: TextReward, steps: int, seed: int, **settings
) -> list[dict]:
    """GRPO's rows of metrics: four groups of 32 answers to SUM a step."""
    return minimal_grpo.train(
        policy, tokenizer, [SUM], steps=steps, prompts_per_step=4, group_size=32, seed=seed, learning_rate=1e-3,
        reward=lambda texts, answers: [reward(text) for text in texts], advantage=group_normalised, on_step=_quietly,
        **{"max_new_tokens": MAX_TOKENS, **settings},
    )


def _quietly(_) -> None:
    """No line a step: a probe is a few steps."""


# ------------------------------------------------------------------ no signal, a plain signal


def constant_reward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> dict[str, float]:
    """The norm of the gradient where every answer gets +1, with the group's mean as baseline and without a baseline.

    With it: exactly 0. If all did equally well there is nothing to prefer, and a step on an all-right or all-wrong
    group is no step. Without: not 0, although the reward says nothing; that gradient is noise.
    """
    policy, norms = digits_policy(model, tokenizer, random_numbers()), {}
    params = sampling.SamplingParams(n=32, temperature=1.0, max_tokens=MAX_TOKENS, seed=seed)
    for name, advantage in (("with baseline", group_normalised), ("without baseline", lambda rewards, _: rewards)):
        policy.zero_grad()
        batch, _ = minimal_grpo.collect(
            policy, tokenizer, [SUM], params, lambda texts, answers: [1.0] * len(texts), advantage
        )
        minimal_grpo.policy_loss(policy, batch, 1.0).backward()
        norms[name] = float(sum(weight.grad.square().sum() for weight in policy.parameters()) ** 0.5)
    return norms


def one_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, wanted: str = "7", steps: int = 12, seed: int = 0
) -> list[dict]:
    """A row of metrics a step where an answer with `wanted` in it gets +1 and any other -1: the reward rises to 1. If
    it does not, the loop is wrong, or the token is never sampled: what never happens cannot be reinforced.
    """
    policy = digits_policy(model, tokenizer, random_numbers())
    return _train(policy, tokenizer, lambda text: 1.0 if wanted in text else -1.0, steps, seed)


def length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, sign: int = 1, steps: int = 8, seed: int = 0
) -> list[dict]:
    """A row of metrics a step where the reward is the number of characters (sign -1: its negative): `mean_length`
    moves. Length is the first thing that a policy finds where length pays.
    """
    policy = digits_policy(model, tokenizer, random_numbers())
    return _train(policy, tokenizer, lambda text: float(sign * len(text)), steps, seed)


# ------------------------------------------------------------------ credit over time


def carry(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, steps: int = 8, seed: int = 0
) -> dict[str, float]:
    """The share of answers 15 to 7+8 before training, after it, and after training with credit for the last token only.

    The policy writes two digits, the carry and then the ones, and is rewarded after the second. The carry earns nothing
    when it is written; it decides whether the next digit can. With the advantage on every token both digits are
    learned. With it on the token at which the reward arrives, only the second is.
    """
    start = digits_policy(model, tokenizer, [first + second for first in "1256" for second in "1256"])
    shares = {"before": _share_right(start, tokenizer, seed)}
    for name, mean in (("credit for all tokens", minimal_grpo.token_mean), ("credit for the last token", _last_mean)):
        policy = copy.deepcopy(start)
        _train(policy, tokenizer, lambda text: 1.0 if text == SUM.answer else -1.0, steps, seed, mean=mean,
               max_new_tokens=2)
        shares[name] = _share_right(policy, tokenizer, seed)
    return shares


def coin(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seeds: Sequence[int] = range(8), steps: int = 8
) -> list[tuple[float, float]]:
    """The share of answers 15 to 7+8 before and after training on a reward that is a coin's, a pair a seed.

    Nothing can be learned, so the mean change is zero. But a policy that is pushed about by noise drifts, and on some
    seeds it drifts to the right answer: one run that rises shows nothing, least of all the one that was picked.
    """
    start = digits_policy(model, tokenizer, [first + second for first in "1256" for second in "1256"])
    shares = []
    for seed in seeds:
        policy, toss = copy.deepcopy(start), random.Random(seed)
        _train(policy, tokenizer, lambda text, toss=toss: toss.choice((-1.0, 1.0)), steps, seed, max_new_tokens=2)
        shares.append((_share_right(start, tokenizer, seed), _share_right(policy, tokenizer, seed)))
    return shares


def _last_mean(losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return minimal_grpo.token_mean(losses, last_token(mask))


def last_token(mask: torch.Tensor) -> torch.Tensor:
    """The mask (rows, tokens) with the last 1 of each row alone."""
    remaining = mask.flip(1).cumsum(1).flip(1)
    return mask * (remaining == 1)


def _share_right(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> float:
    params = sampling.SamplingParams(n=256, temperature=1.0, max_tokens=2, seed=derive_seed(seed, 1000))
    (group,) = sampling.sample(policy, tokenizer, [SUM.prompt], params, quiet=True)
    return sum(rollout.text == SUM.answer for rollout in group) / len(group)
