"""GRPO's rollouts: sampled for TRL's trainer at the step's temperature, by our engine or by TRL's vLLM; the choice of
prompts before training; and the check that sampler and trainer are the same model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import trl
from accelerate.utils import broadcast_object_list, gather_object
from transformers import PreTrainedModel

from phi_lab import sampling
from phi_lab.config.schema import GRPOConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json
from phi_lab.core.seeds import derive_seed
from phi_lab.model import chat, shapes
from phi_lab.problems.problem import Problem

Reward = Callable[[list[str], list[str]], list[float]]  # (completions, gold answers) -> rewards
TemperatureSchedule = Callable[[int, int], float]  # (step, steps) -> sampling temperature
Sampler = Callable[[Sequence[Problem], int, int], list[list[sampling.Sample]]]  # (problems, samples, seed) -> rollouts
SEEDS_APART = 2_654_435_761  # whose multiples lie far apart in the 32 bits that a CPU's generator takes of a seed
SelectPrompts = Callable[[Sampler, Sequence[Problem], GRPOConfig, int, Reward], list[Problem]]
MAX_LOGPROB_GAP = 0.05  # nats a token: bfloat16 rounds by 0.01 to 0.02, another model or position is further away


def sample_groups(
    trainer: trl.GRPOTrainer, prompts: Sequence[str], samples: int, temperature: float, seed: int, title: str = ""
) -> list[list[sampling.Sample]]:
    """`samples` rollouts for each prompt, of the model as it is now, by random numbers of this process alone; without a
    title no progress bar.
    """
    tokenizer, model = trainer.processing_class, trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.use_vllm:
        own_seed = seed + trainer.accelerator.process_index * SEEDS_APART
        params = sampling.SamplingParams(
            n=samples, temperature=temperature, max_tokens=trainer.max_completion_length, seed=own_seed
        )
        return sampling.sample(model, tokenizer, prompts, params, engine=trainer.engine, title=title, quiet=not title)
    repeated_prompts = [ids for prompt in prompts for ids in [chat.prompt_ids(tokenizer, prompt)] * samples]
    trainer.vllm_generation.temperature = temperature
    _, completions, logprobs, _ = trainer.vllm_generation.generate(repeated_prompts, None, samples)
    stops = sampling.stop_tokens(model, tokenizer)
    flat = [
        sampling.to_sample(tokenizer, list(ids), [top[0] for top in row], stops)
        for ids, row in zip(completions, logprobs, strict=True)
    ]
    return [flat[first : first + samples] for first in range(0, len(flat), samples)]


def make_rollout_func(schedule: TemperatureSchedule, seed: int) -> Callable:
    """TRL's rollout_func: a step's rollouts at the step's temperature. The first ones are checked against the trainer
    (`require_parity`).
    """
    checked = False

    def rollout_func(prompts: list[str], trainer: trl.GRPOTrainer) -> dict[str, list]:
        nonlocal checked
        step, group_size = trainer.state.global_step, trainer.num_generations
        trainer.temperature = schedule(step, trainer.state.max_steps)
        distinct = prompts[::group_size]
        groups = sample_groups(trainer, distinct, group_size, trainer.temperature, derive_seed(seed, step))
        flat = [rollout for group in groups for rollout in group]
        prompt_ids = [chat.prompt_ids(trainer.processing_class, prompt) for prompt in distinct]
        if not checked:
            longest = [max(group, key=lambda rollout: len(rollout.ids)) for group in groups[:4]]
            model = trainer.accelerator.unwrap_model(trainer.model)
            require_parity(model, prompt_ids[:4], longest, trainer.temperature)
            checked = True
        trainer.reward_funcs[0].texts = [rollout.text for rollout in flat]
        return {
            "prompt_ids": [ids for ids, group in zip(prompt_ids, groups, strict=True) for _ in group],
            "completion_ids": [rollout.ids for rollout in flat],
            "logprobs": [rollout.logprobs for rollout in flat],
        }

    return rollout_func


def recording_reward(reward: Reward) -> Callable[..., list[float]]:
    """A reward as TRL calls it, on the texts that `rollout_func` leaves in `texts` (TRL would decode them anew). Its
    `last` holds the rewards of the newest batch.
    """

    def verifiable_reward(completions: list[str], answer: list[str], **_) -> list[float]:
        verifiable_reward.last = [float(value) for value in reward(verifiable_reward.texts, answer)]
        return verifiable_reward.last

    return verifiable_reward


def choose_prompts(
    trainer: trl.GRPOTrainer, select: SelectPrompts, problems: Sequence[Problem], config: GRPOConfig, seed: int,
    reward: Reward,
) -> tuple[list[Problem], int]:
    """The prompts that `select` chooses, and how many tokens were read and sampled for that; all of them, for nothing,
    where no rollout probes them. The choice may take hours, so it is written beside the trainer's checkpoints, where a
    resumed stage reads it.
    """
    if not config.probe_rollouts:
        return list(problems), 0
    saved, tokens, accelerator = Path(trainer.args.output_dir) / "prompts.json", 0, trainer.accelerator

    def sample(problems: Sequence[Problem], samples: int, seed: int) -> list[list[sampling.Sample]]:
        nonlocal tokens
        prompts, processes = [problem.prompt for problem in problems], accelerator.num_processes
        share = math.ceil(len(prompts) / processes)  # prompts a process; every process gets all rollouts
        padded = prompts + prompts[:1] * (share * processes - len(prompts))
        shard = padded[accelerator.process_index * share :][:share]
        groups = sample_groups(trainer, shard, samples, config.temperature_start, seed, title="choosing prompts")
        if processes > 1:  # there may be a hundred million ids, and only their number is needed
            groups = [[replace(one, ids=[0] * len(one.ids), logprobs=[]) for one in group] for group in groups]
            groups = gather_object(groups)[: len(prompts)]
        for prompt, group in zip(prompts, groups, strict=True):
            prompt_tokens = len(chat.prompt_ids(trainer.processing_class, prompt))
            tokens += sum(prompt_tokens + len(rollout.ids) for rollout in group)
        return groups

    if not saved.exists():
        # Verdicts have deadlines, so processes might judge differently: the choice of the first one counts for all.
        (chosen,) = broadcast_object_list([select(sample, problems, config, seed, reward)])
        if accelerator.process_index == 0:
            write_json(saved, {"tokens": tokens, "problems": [asdict(problem) for problem in chosen]})
        accelerator.wait_for_everyone()
    redo = "delete it to have prompts chosen again"
    choice = read_json(saved, ("problems", "tokens"), redo)
    try:
        return [Problem(**problem) for problem in choice["problems"]], int(choice["tokens"])
    except (TypeError, ValueError):
        raise UserError(f"{saved} has an unexpected form; {redo}") from None


def logprob_gap(
    model: PreTrainedModel, prompts: Sequence[list[int]], samples: Sequence[sampling.Sample], temperature: float
) -> float:
    """The largest difference between the sampler's and the trainer's log-probabilities, nats a token: the mean over a
    completion's last 1,024 tokens, the maximum over completions. prompts: the token ids of each sample's prompt.
    """
    was_training, largest = model.training, 0.0
    model.eval()
    for prompt, sample in zip(prompts, samples, strict=True):
        last = min(len(sample.ids), 1024)  # logits of a whole long answer would be tens of gigabytes
        with torch.no_grad():
            ids = torch.tensor([prompt + sample.ids], device=model.device)
            logits = model(input_ids=ids, logits_to_keep=last + 1).logits[0, :-1].float() / temperature
        logprobs = logits.log_softmax(-1).gather(1, ids[0, -last:, None])[:, 0].cpu()
        largest = max(largest, float((logprobs - torch.tensor(sample.logprobs[-last:])).abs().mean()))
    model.train(was_training)
    return largest


def require_parity(
    model: PreTrainedModel, prompts: Sequence[list[int]], samples: Sequence[sampling.Sample], temperature: float
) -> None:
    """Raises UserError where sampler and trainer are not the same model: the gradient would be another policy's.

    Phi-4-mini's LongRoPE invites that: transformers takes the short factors for a batch of up to 4,096 tokens and the
    long ones beyond, vLLM decides once, by its max_model_len. `checkpoints.load` makes transformers do as vLLM does.
    """
    gap = logprob_gap(model, prompts, samples, temperature)
    if gap > MAX_LOGPROB_GAP:
        hint = "; with LongRoPE both must choose the same factors, below and above 4,096 tokens"
        raise UserError(
            f"sampler and trainer differ by {gap:.3f} nats a token (at most {MAX_LOGPROB_GAP} is rounding): "
            f"nothing is trained{hint if shapes.longrope(model) else ''}"
        )
