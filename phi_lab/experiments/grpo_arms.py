"""How an arm of `rl_devices` is trained: its settings, advantages and reward, its prompts, its number of steps.

What the arms ask is in `rl_devices.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from phi_lab import sampling
from phi_lab.config.schema import GRPOConfig
from phi_lab.core.errors import UserError
from phi_lab.core.seeds import derive_seed
from phi_lab.experiments.design import Trial
from phi_lab.model import chat, checkpoints
from phi_lab.pipeline.controls import coin
from phi_lab.problems import arithmetic
from phi_lab.problems.problem import Problem
from phi_lab.stages import grpo
from phi_lab.stages.grpo_sampling import Reward, TemperatureSchedule
from phi_lab.stages.grpo_trainer import Advantage

if TYPE_CHECKING:
    from phi_lab.experiments.rl_devices import Device

QUESTIONS_FROM = 350_000  # added to a seed: no stage asks these questions
OVERSAMPLED = 2  # times the prompts of a step that DAPO's filter chooses from
PROBES = 2  # rollouts of a candidate; one that is asked about has one right
PROBE_TEMPERATURE = 1.0  # the same for all arms, so that they choose the same prompts


def config(trial: Trial, device: Device) -> GRPOConfig:
    """The course's GRPO with an arm's temperatures; prompts are chosen here, so the stage probes none."""
    first, last, share = device.temperatures
    plan = trial.config.grpo
    times = OVERSAMPLED if device.advantage == "mixed" else 1
    return replace(plan, temperature_start=first, temperature_end=last, anneal_fraction=share, probe_rollouts=0,
                   prompts_per_step=times * plan.prompts_per_step)


def advantage(trial: Trial, device: Device) -> Advantage:
    """An arm's advantages."""
    if device.advantage == "mixed":
        return first_mixed(trial.config.grpo.prompts_per_step)
    return {"rebalance": grpo.rebalance, "plain": grpo.group_normalised, "mean": without_std}[device.advantage]


def without_std(rewards: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Dr. GRPO's advantages: reward - mean of the group. rewards and advantages: (prompts, group)."""
    return rewards - rewards.mean(1, keepdim=True)


def first_mixed(count: int) -> Advantage:
    """Plain GRPO's advantages of the first `count` groups with both verdicts, zero for all others: DAPO's filter."""

    def advantages(rewards: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        mixed = rewards.std(1) > 0
        chosen = mixed & (mixed.cumsum(0) <= count)
        return grpo.group_normalised(rewards, generator) * chosen[:, None]

    return advantages


def schedule(trial: Trial, device: Device) -> TemperatureSchedule:
    """An arm's temperature at a step of so many."""
    forwards = grpo.anneal(config(trial, device))
    return (lambda step, steps: forwards(steps - 1 - step, steps)) if device.backwards else forwards


def reward(trial: Trial, device: Device) -> Reward:
    """The verifier, or a coin."""
    return coin(trial.seed) if device.coin else grpo.verified


def choose(trial: Trial, device: Device) -> dict:
    """"problems": the prompts of an arm; "steps": how many it can pay for, what is read here deducted; and
    "forward_tokens": what that is.
    """
    plan, settings = config(trial, device), trial.settings
    student = trial.model("sft")
    tokenizer, model = checkpoints.load_tokenizer(student), checkpoints.load_to_sample(student, "cpu")
    read = 0

    def sample(problems: Sequence[Problem], count: int, seed: int, temperature: float) -> list[list[sampling.Sample]]:
        nonlocal read
        params = sampling.SamplingParams(n=count, temperature=temperature, max_tokens=plan.max_new_tokens, seed=seed)
        groups = sampling.sample(model, tokenizer, [problem.prompt for problem in problems], params, quiet=True)
        read += sum(tokens_of(problem, one) for problem, group in zip(problems, groups, strict=True) for one in group)
        return groups

    def tokens_of(problem: Problem, one: sampling.Sample) -> int:
        return len(chat.prompt_ids(tokenizer, problem.prompt)) + len(one.ids)

    problems = arithmetic.sample_problems(
        settings.candidates, trial.seed + QUESTIONS_FROM, levels=arithmetic.LEVELS)
    if device.prompts != "all":
        probes = sample(problems, PROBES, derive_seed(trial.seed, 800_000), PROBE_TEMPERATURE)
        problems = half_right(problems, probes, plan.keep_fraction, device.prompts == "uniform", trial.seed)
        if len(problems) < settings.least_prompts:
            raise UserError(f"{len(problems)} of {settings.candidates} prompts to train on, fewer than "
                            f"{settings.least_prompts}: take more candidates")
    count = settings.trial_steps * plan.prompts_per_step
    asked = (problems * (1 + count // len(problems)))[:count]
    groups = sample(asked, plan.group_size, derive_seed(trial.seed, 900_000), mean_temperature(trial, device))
    flat = [(problem, one) for problem, group in zip(asked, groups, strict=True) for one in group]
    rewards = reward(trial, device)([one.text for _, one in flat], [problem.answer for problem, _ in flat])
    by_group = torch.tensor(rewards).view(settings.trial_steps, plan.prompts_per_step, plan.group_size)
    generator = torch.Generator().manual_seed(trial.seed)
    values = torch.stack([advantage(trial, device)(step, generator) for step in by_group]).flatten().tolist()
    sampled = sum(tokens_of(*one) for one in flat)
    trained = sum(tokens_of(*one) for one, value in zip(flat, values, strict=True) if value)
    return {"problems": [asdict(problem) for problem in problems], "forward_tokens": read,
            "steps": steps_for(settings.budget - read / 3, (trained + sampled / 3) / settings.trial_steps),
            "trial": {"sampled_tokens": sampled, "trained_tokens": trained}}


def half_right(
    problems: Sequence[Problem], probes: Sequence[Sequence[sampling.Sample]], keep: float, uniform: bool, seed: int,
) -> list[Problem]:
    """Of the problems of whose answers some are right, and not more than half, the share `keep`: those whose answers
    vary least in length (standard deviation / mean), or any, drawn at random.
    """
    answers = [(one.text, problem.answer) for problem, group in zip(problems, probes, strict=True) for one in group]
    rewards, found = iter(grpo.verified(*map(list, zip(*answers, strict=True)))), []
    for problem, group in zip(problems, probes, strict=True):
        right = sum(reward > 0 for reward in islice(rewards, len(group)))
        if 0 < right <= len(group) / 2:
            lengths = torch.tensor([float(len(one.ids)) for one in group])
            found.append((float(lengths.std() / lengths.mean()), problem))
    if uniform:
        found.sort(key=lambda pair: pair[0])
    else:
        random.Random(seed).shuffle(found)
    return [problem for _, problem in found[: round(keep * len(found))]]


def steps_for(budget: float, a_step: float) -> int:
    """The number of steps nearest to a budget; at least one."""
    return max(1, round(budget / a_step))


def mean_temperature(trial: Trial, device: Device) -> float:
    """The mean of an arm's schedule over its steps."""
    temperature = schedule(trial, device)
    return sum(temperature(step, 100) for step in range(100)) / 100
