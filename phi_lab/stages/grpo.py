"""Stage 4, reinforcement learning: GRPO with a verifiable reward and the paper's three stabilisers.

Reward: +1 for a verified final answer, -1 otherwise (`verified`; paper, section 3.4). The paper's pilot runs failed for
three reasons; each remedy here is a plain function that a learner can replace:

1. responses to one prompt differ much in length -> `select_uniform_length`: keep prompts whose responses are alike;
2. all-right or all-wrong groups have no gradient -> `rebalance`: oversample, keep k = min(right, wrong, G/2) of each
   side, drop prompts above 50 % or with k = 0, and divide the loss by the tokens that count;
3. training wants a high temperature, evaluation a low one -> `anneal`: 1.0 -> 0.6 linearly over half of the steps.

`train` puts them together; TRL's GRPOTrainer optimises (grpo_trainer.py and grpo_sampling.py adapt it). Sampling
and the loss's log-probabilities use the same temperature at each step, or the gradient would be that of another
distribution than the one sampled (and with one update per batch TRL's ratios are 1 all the same, so nothing shows it).
Rollouts come from `phi_lab.sampling`, or on GPUs from the vLLM that TRL runs beside the trainer; where PHI_LAB_VLLM is
set, from the server at that URL (a `vllm serve` of the stage's student, as in TRL's documentation). Neither has run:
TRL sends weights to a vLLM with CUDA only (docs/scaling.md). Deviations from TRL's defaults: advantages are ours and
rewards are not scaled; rows with zero advantage are dropped before the forward pass (they have no gradient, only cost).
As by default: no KL term, one update per batch.

    phi-lab run --from grpo --to grpo --out runs/my-run
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import trl

from phi_lab import sampling
from phi_lab.config.schema import GRPOConfig
from phi_lab.model import checkpoints
from phi_lab.problems.problem import Problem
from phi_lab.stages import checkpointing, training
from phi_lab.stages.grpo_sampling import Reward, Sampler, SelectPrompts, TemperatureSchedule, choose_prompts
from phi_lab.stages.grpo_trainer import Advantage, GRPOTrainer, problems_dataset, vllm_arguments
from phi_lab.stages.training import TrainingResult
from phi_lab.verify import verify_many

METRICS = (
    "reward", "zero_variance_share", "kept_share", "mean_length", "completions/clipped_ratio", "entropy", "temperature",
    "trained_tokens",
)


def verified(completions: list[str], answers: list[str]) -> list[float]:
    """The reward of each completion: +1 if its final answer equals the gold answer, else -1."""
    verdicts = verify_many(list(zip(completions, answers, strict=True)))
    return [1.0 if verdict.verdict == "right" else -1.0 for verdict in verdicts]


def group_normalised(rewards: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Plain GRPO's advantages: (reward - mean) / std within each group, zero where all rewards are equal (arXiv
    2402.03300). rewards and advantages: (prompts, group).
    """
    spread = rewards.std(1, keepdim=True)
    return torch.where(spread > 0, (rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4), 0.0)


def rebalance(rewards: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The paper's rebalancing, as advantages: +1 and -1 for k = min(right, wrong, G/2) responses of each side, drawn at
    random. rewards and advantages: (prompts, group).

    Zero means "is not trained on": responses beyond k, prompts with k = 0, prompts where more than half are right
    already. The k right and k wrong rewards kept have mean 0 and population standard deviation 1, so these are GRPO's
    advantages of that subset (`group_normalised` divides by the sample standard deviation: 0.71 at k = 1).
    """
    advantages = torch.zeros_like(rewards)
    right = rewards > 0
    for row in range(len(rewards)):
        hits, misses = right[row].nonzero()[:, 0], (~right[row]).nonzero()[:, 0]
        k = min(len(hits), len(misses), rewards.shape[1] // 2)
        if len(hits) * 2 > rewards.shape[1] or k == 0:
            continue
        advantages[row, hits[torch.randperm(len(hits), generator=generator)[:k]]] = 1.0
        advantages[row, misses[torch.randperm(len(misses), generator=generator)[:k]]] = -1.0
    return advantages


def anneal(config: GRPOConfig) -> TemperatureSchedule:
    """The sampling temperature of each step: from `temperature_start` linearly to `temperature_end` over the first
    `anneal_fraction` of the steps, then constant.
    """

    def temperature(step: int, steps: int) -> float:
        progress = min(1.0, step / max(1, config.anneal_fraction * steps))
        return config.temperature_start + (config.temperature_end - config.temperature_start) * progress

    return temperature


def select_uniform_length(
    sample: Sampler, problems: Sequence[Problem], config: GRPOConfig, seed: int, reward: Reward = verified
) -> list[Problem]:
    """The prompts to train on: first response wrong, at least one and at most half of `probe_rollouts` right, and of
    these the `keep_fraction` whose responses vary least in length (standard deviation / mean).

    Each prompt gets one rollout; only if that is wrong does it get `probe_rollouts` - 1 more, so prompts that the model
    mostly solves cost one rollout each. If no prompt qualifies, all prompts are returned.
    """
    first_rollouts = sample(problems, 1, seed)
    rewards = reward([group[0].text for group in first_rollouts], [problem.answer for problem in problems])
    failed = [
        (problem, group)
        for problem, group, value in zip(problems, first_rollouts, rewards, strict=True) if value <= 0
    ]
    more_rollouts = sample([problem for problem, _ in failed], config.probe_rollouts - 1, seed + 1) if failed else []
    scored = []
    for (problem, first), more in zip(failed, more_rollouts, strict=True):
        group = first + more
        rewards = reward([rollout.text for rollout in group], [problem.answer] * len(group))
        lengths = torch.tensor([float(len(rollout.ids)) for rollout in group])
        if 0 < sum(value > 0 for value in rewards) <= len(rewards) / 2:
            scored.append((float(lengths.std() / lengths.mean()), problem))
    scored.sort(key=lambda pair: pair[0])
    chosen = [problem for _, problem in scored[: max(1, round(config.keep_fraction * len(scored)))]]
    return chosen or list(problems)


def train(
    student: Path, problems: Sequence[Problem], out: Path, config: GRPOConfig, *, seed: int,
    reward: Reward = verified, advantage: Advantage = rebalance, temperature: TemperatureSchedule | None = None,
    select: SelectPrompts = select_uniform_length,
) -> TrainingResult:
    """Train the model in `student` on its own rollouts; it is saved in `out/model`.

    problems: candidate prompts, from which `select` chooses. The defaults of reward, advantage, temperature (`anneal`)
    and select are the functions above.
    """
    if config.hardware.engine == "vllm":
        sampling.require_vllm()
    tokenizer, model = checkpoints.load_tokenizer(student), checkpoints.load(student, config.hardware)
    started = time.perf_counter()
    schedule = temperature or anneal(config)
    recorder = training.MetricsRecorder(out / "metrics.jsonl", config.steps, "GRPO", names=METRICS)
    trainer = GRPOTrainer(
        config=config, seed=seed, reward=reward, advantage=advantage, schedule=schedule, model=model,
        args=trainer_arguments(config, out, seed, schedule, vllm_arguments(model, tokenizer, problems, config)),
        train_dataset=problems_dataset(problems), processing_class=tokenizer, callbacks=[recorder],
    )
    chosen, probe_tokens = choose_prompts(trainer, select, problems, config, seed, reward)
    trainer.train_dataset = problems_dataset(repeat(chosen, config.steps * config.prompts_per_step, seed))
    # The policy changes in here: each step samples groups, rewards them, and takes one gradient step on the advantages.
    trainer.train(resume_from_checkpoint=checkpointing.resume_point(trainer.args))
    train_tokens = round(sum(row["trained_tokens"] for row in recorder.rows))
    forward_tokens = round(recorder.rows[-1]["tokens"] + probe_tokens)
    seconds = time.perf_counter() - started
    return training.save_and_summarise(trainer, tokenizer, out, recorder, seconds, train_tokens, forward_tokens)


def trainer_arguments(
    config: GRPOConfig, out: Path, seed: int, schedule: TemperatureSchedule, vllm: dict
) -> trl.GRPOConfig:
    """trl.GRPOConfig for this stage. scale_rewards="none": `advantage` replaces TRL's; beta=0: no KL term."""
    return training.keep_fp32_outputs_under_fsdp(trl.GRPOConfig(
        **training.common_arguments(config, out, config.steps, seed), **vllm, lr_scheduler_type=config.lr_schedule,
        warmup_steps=max(1, config.steps // 10), adam_beta2=0.98, save_steps=10, logging_steps=1,
        num_generations=config.group_size, steps_per_generation=1,
        per_device_train_batch_size=training.per_process_batch(config.prompts_per_step) * config.group_size,
        max_completion_length=config.max_new_tokens, temperature=schedule(0, config.steps), beta=0.0,
        epsilon=config.epsilon, scale_rewards="none", loss_type="dapo",
        shuffle_dataset=False,  # `repeat` has shuffled it; TRL's own shuffle would differ after a resume
    ))


def repeat(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """At least `count` prompts in random order, every one once before any is repeated."""
    rng, repeated = random.Random(seed), []
    while len(repeated) < count:
        repeated += rng.sample(problems, len(problems))
    return repeated
