"""Stage 4, reinforcement learning: GRPO with a verifiable reward and the paper's three stabilisers.

Reward: +1 for a verified final answer, -1 otherwise (paper, section 3.4). The pilot failed for three reasons, and
each has its device here, a plain function that a learner can replace:

1. answers to one prompt differ much in length -> `select_uniform_length`: keep prompts whose answers are alike;
2. all-right or all-wrong groups have no gradient -> `rebalance`: oversample, keep k = min(right, wrong, G/2) of each
   side, drop prompts above 50 % or with k = 0, and divide the loss by the tokens that count;
3. training wants hot sampling, evaluation cool -> `anneal`: temperature 1.0 -> 0.6 linearly over half of the steps.

TRL's GRPOTrainer does the optimisation. The temperature is moved for sampling and for the log-probabilities together,
or the importance ratios would be wrong. Rollouts come from `phi_lab.sampling`, or on GPUs from the vLLM that TRL keeps
beside the trainer; where PHI_LAB_VLLM is set, from the server at that URL (a `vllm serve` of the stage's student, as
TRL's documentation has it). vLLM has not run here. Deviations from TRL's defaults: rows with zero advantage are dropped
before the forward pass (they have no gradient, only cost), no KL term, one update a batch.

    phi-lab run --from grpo --to grpo --out runs/my-run
"""

import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from types import MethodType

import torch
import trl
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback
from trl.trainer.utils import add_fused_lm_head

from phi_lab import sampling
from phi_lab.config import schema
from phi_lab.config.schema import GRPOConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json
from phi_lab.model import chat, checkpoints, shapes
from phi_lab.problems.problem import Problem
from phi_lab.stages.muon import muon
from phi_lab.stages.training import (
    Recorder,
    Result,
    backward_in_microbatches,
    hardware_arguments,
    keep_fp32_outputs_under_fsdp,
    per_process_batch,
    preflight_longest_batch,
    resume_point,
    save_and_summarise,
)
from phi_lab.verify import verify_many

os.environ.setdefault(
    "TRL_EXPERIMENTAL_SILENCE", "1"
)  # rollout_func is experimental in TRL: constraints.txt pins the version

Reward = Callable[[list[str], list[str]], list[float]]  # (completions, gold answers) -> rewards
Advantage = Callable[
    [torch.Tensor, torch.Generator], torch.Tensor
]  # rewards (prompts, group) -> advantages, same shape
Temperature = Callable[[int, int], float]  # (step, steps) -> sampling temperature
Ask = Callable[[Sequence[Problem], int, int], list[list[sampling.Sample]]]  # (problems, samples, seed) -> rollouts
Select = Callable[[Ask, Sequence[Problem], GRPOConfig, int, Reward], list[Problem]]  # candidates -> prompts
MAX_LOGPROB_GAP = 0.05  # nats a token: bfloat16 rounds by 0.01 to 0.02, another model or another position is further away
LOGGED = ("reward", "zero_variance_share", "kept_share", "mean_length", "entropy", "temperature", "trained_tokens")


def verified(completions: list[str], answers: list[str]) -> list[float]:
    """+1 where the final answer is right, -1 everywhere else."""
    verdicts = verify_many(list(zip(completions, answers, strict=True)))
    return [1.0 if verdict.verdict == "right" else -1.0 for verdict in verdicts]


def group_normalised(rewards: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Plain GRPO: (reward - mean) / std within each group; zero where all rewards are equal. (arXiv 2402.03300)"""
    spread = rewards.std(1, keepdim=True)
    return torch.where(spread > 0, (rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4), 0.0)


def rebalance(rewards: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """The paper's rebalancing, as advantages: +1 and -1 for k = min(right, wrong, G/2) answers of each side, at random.

    Zero means "does not count": answers beyond k, prompts with k = 0, prompts where more than half are right already.
    With as many right as wrong answers the group's mean is 0 and its standard deviation 1, so these are GRPO's own
    advantages.
    """
    advantages = torch.zeros_like(rewards)
    right = rewards > 0
    for row in range(len(rewards)):
        hits, misses = right[row].nonzero()[:, 0], (~right[row]).nonzero()[:, 0]
        k = min(len(hits), len(misses), rewards.shape[1] // 2)
        if len(hits) * 2 > rewards.shape[1] or k == 0:
            continue
        advantages[row, hits[torch.randperm(len(hits), generator=random)[:k]]] = 1.0
        advantages[row, misses[torch.randperm(len(misses), generator=random)[:k]]] = -1.0
    return advantages


def anneal(config: GRPOConfig) -> Temperature:
    """Linear from `hot` to `cool` over the first `annealed` share of the steps, then fixed."""

    def temperature(step: int, steps: int) -> float:
        progress = min(1.0, step / max(1, config.anneal_fraction * steps))
        return config.temperature_start + (config.temperature_end - config.temperature_start) * progress

    return temperature


def select_uniform_length(
    ask: Ask, problems: Sequence[Problem], config: GRPOConfig, seed: int, reward: Reward = verified
) -> list[Problem]:
    """Prompts worth training on: a right answer, at most half of them right (as `rebalance` asks), and of these the
    `keep` share whose lengths vary least.

    Two rounds: every candidate is asked once, and only those that fail are asked `probes` - 1 times more, so that
    most candidates, which the model answers well, cost one rollout. Variation is the standard deviation of the
    answers' lengths over their mean. Without such a prompt, all are kept.
    """
    once = ask(problems, 1, seed)
    rewards = reward([group[0].text for group in once], [problem.answer for problem in problems])
    failed = [pair for pair, value in zip(zip(problems, once, strict=True), rewards, strict=True) if value <= 0]
    again = ask([problem for problem, _ in failed], config.probe_rollouts - 1, seed + 1) if failed else []
    scored = []
    for (problem, first), more in zip(failed, again, strict=True):
        group = first + more
        rewards = reward([one.text for one in group], [problem.answer] * len(group))
        lengths = torch.tensor([float(len(one.ids)) for one in group])
        if 0 < sum(value > 0 for value in rewards) <= len(rewards) / 2:
            scored.append((float(lengths.std() / lengths.mean()), problem))
    scored.sort(key=lambda pair: pair[0])
    chosen = [problem for _, problem in scored[: max(1, round(config.keep_fraction * len(scored)))]]
    return chosen or list(problems)


def train(
    student: Path, problems: Sequence[Problem], out: Path, config: GRPOConfig, *, seed: int,
    reward: Reward = verified, advantage: Advantage = rebalance, temperature: Temperature | None = None,
    select: Select = select_uniform_length,
) -> Result:
    """Train the model in `student` on its own rollouts; saved in `out/model`.

    problems: candidates, of which `select` keeps some. advantage, reward, temperature: see the functions above.
    """
    tokenizer, vllm = checkpoints.load_tokenizer(student), config.hardware.engine == "vllm"
    if vllm:
        sampling.require_vllm()
    model = checkpoints.load(student, config.hardware)
    longest = max(len(chat.prompt_ids(tokenizer, problem.prompt)) for problem in problems) + config.max_new_tokens
    longest = max(longest, shapes.min_vllm_context(model))
    started = time.perf_counter()
    schedule = temperature or anneal(config)
    arguments = trl.GRPOConfig(
        output_dir=str(out / "trainer"), seed=seed, data_seed=seed, max_steps=config.steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_schedule, warmup_steps=max(1, config.steps // 10), max_grad_norm=1.0,
        adam_beta2=0.98, num_generations=config.group_size, steps_per_generation=1,
        per_device_train_batch_size=per_process_batch(config.prompts_per_step) * config.group_size,
        max_completion_length=config.max_new_tokens, temperature=schedule(0, config.steps), beta=0.0,
        epsilon=config.epsilon, scale_rewards="none", loss_type="dapo", save_strategy="steps", save_steps=10,
        save_total_limit=1, logging_steps=1, **hardware_arguments(config.hardware), **(_vllm(longest) if vllm else {}),
        shuffle_dataset=False,  # TRL's own order is lost on resume
    )
    keep_fp32_outputs_under_fsdp(arguments)
    recorder = Recorder(out / "metrics.jsonl", config.steps, "GRPO", names=LOGGED)
    trainer = _Trainer(
        model=model, args=arguments, train_dataset=_dataset(problems), processing_class=tokenizer,
        callbacks=[recorder], reward_funcs=[recording_reward(reward)], rollout_func=make_rollout_func(schedule, seed),
    )
    if config.muon:  # GRPOTrainer's own words have no place for it
        trainer.optimizer_cls_and_kwargs = (muon, {"lr": config.learning_rate, "weight_decay": 0.0})
    trainer.engine = config.hardware.engine
    _follow_temperature(trainer)
    probed = 0  # tokens

    def ask(problems: Sequence[Problem], samples: int, seed: int) -> list[list[sampling.Sample]]:
        nonlocal probed
        prompts, place = [problem.prompt for problem in problems], trainer.accelerator
        each = math.ceil(len(prompts) / place.num_processes)  # asked by each process; all hear all answers
        shares = prompts + prompts[:1] * (each * place.num_processes - len(prompts))
        mine = shares[place.process_index * each :][:each]
        groups = _sample(trainer, mine, samples, config.temperature_start, seed, title="choosing prompts")
        if place.num_processes > 1:  # of the ids only their number is asked for, and there may be a hundred million
            groups = [[replace(one, ids=[0] * len(one.ids), logprobs=[]) for one in group] for group in groups]
            groups = gather_object(groups)[: len(prompts)]
        for prompt, group in zip(prompts, groups, strict=True):
            asked = len(chat.prompt_ids(tokenizer, prompt))
            probed += sum(asked + len(one.ids) for one in group)
        return groups

    kept = out / "trainer" / "prompts.json"  # to choose them may take hours
    if not kept.exists():
        # Verdicts have deadlines, so processes might judge differently: the first one's choice is everybody's.
        (chosen,) = broadcast_object_list([select(ask, problems, config, seed, reward)])
        if arguments.process_index == 0:
            write_json(kept, {"tokens": probed, "problems": [asdict(problem) for problem in chosen]})
        trainer.accelerator.wait_for_everyone()
    found = read_json(kept)
    probed, chosen = found["tokens"], [Problem(**problem) for problem in found["problems"]]
    order, asked = random.Random(seed), []
    while len(asked) < config.steps * config.prompts_per_step:  # every prompt once before any comes again
        asked += order.sample(chosen, len(chosen))
    trainer.train_dataset = _dataset(asked)
    trainer.advantage, trainer.seed, trainer.rows = advantage, seed, config.hardware.micro_batch_size
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume_point(out))
    trained, sampled = sum(row["trained_tokens"] for row in recorder.rows), recorder.rows[-1]["tokens"]
    return save_and_summarise(
        trainer, tokenizer, out, recorder, time.perf_counter() - started, round(trained), round(sampled + probed)
    )


# ------------------------------------------------------------------ the seam to TRL


def _follow_temperature(trainer: trl.GRPOTrainer) -> None:
    """Take log-probabilities at the temperature of the step. TRL fixes, when it is built, what its head divides by."""
    model = trainer.model.get_base_model() if isinstance(trainer.model, PeftModel) else trainer.model
    built, heads = model.forward, {}

    @wraps(type(model).forward)  # `generate` looks at its signature
    def forward(self, *arguments, fused_lm_head=False, **rest):
        if not fused_lm_head:
            return built(*arguments, **rest)
        if trainer.temperature not in heads:
            outer, self.forward = self.forward, built
            add_fused_lm_head(self, temperature=trainer.temperature, outputs=("log_probs", "entropy"))
            heads[trainer.temperature], self.forward = self.forward, outer
        return heads[trainer.temperature](*arguments, fused_lm_head=True, **rest)

    model.forward = MethodType(forward, model)


def _dataset(problems: Sequence[Problem]) -> Dataset:
    return Dataset.from_list([{"prompt": problem.prompt, "answer": problem.answer} for problem in problems])


def _vllm(longest: int) -> dict:
    """GRPOConfig's words for sampling by vLLM, beside the trainer on each GPU or on a server. Without TRL's correction
    of importance: the two are held to be equal (`require_parity`), and it reads all rows of a batch at once.
    """
    if server := os.environ.get("PHI_LAB_VLLM"):
        return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": server,
                "vllm_importance_sampling_correction": False}
    return {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": schema.VLLM_SHARE,
            "vllm_max_model_length": longest, "vllm_importance_sampling_correction": False}


class _Trainer(trl.GRPOTrainer):
    """GRPOTrainer whose advantages come from a plain function and whose zero-advantage rows cost nothing."""

    advantage: Advantage
    engine: str
    seed: int
    rows: int  # in one forward and backward pass
    rehearsed: bool = False

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        mine = torch.tensor(self.reward_funcs[0].last).view(-1, self.num_generations)
        gather, rank = self.accelerator.gather, self.accelerator.process_index
        rewards = gather(mine.to(self.accelerator.device)).cpu()  # every process knows all groups and chooses alike
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + self.state.global_step)
        every = self.advantage(rewards, chance)
        advantages = every[rank * len(mine) : (rank + 1) * len(mine)].to(self.accelerator.device)
        lengths = batch["completion_mask"].sum(1).float()
        log = self._metrics["train"]
        log["zero_variance_share"].append((rewards.std(1) == 0).float().mean().item())
        log["kept_share"].append((every != 0).float().mean().item())
        log["mean_length"].append(gather(lengths).mean().item())
        log["temperature"].append(self.temperature)
        kept = (advantages.flatten() != 0).nonzero()[:, 0]
        most = int((every.view(self.accelerator.num_processes, -1) != 0).sum(1).max())  # of any process
        idle = kept.new_zeros(max(most, 1) - len(kept))  # rows without an advantage, so without a gradient
        rows = len(advantages.flatten())
        batch = _rows(batch, torch.cat((kept, idle)), rows)
        batch["advantages"] = torch.cat((advantages.flatten()[kept], advantages.new_zeros(len(idle))))
        said = batch["completion_mask"].sum(1)
        counts = torch.stack([(said * (batch["advantages"] != 0)).sum(), said.sum() + batch["prompt_mask"].sum()])
        counting, read = gather(counts[None]).sum(0)
        batch["num_items_in_batch"] = counting
        log["trained_tokens"].append(float(read))
        return batch

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The same loss and gradient, a few answers of like length at a time: memory and padding are those of a few."""
        whole, parts = super().compute_loss, _slices(inputs, self.rows)
        if not self.rehearsed and self.optimizer.state:
            worst = pad_to_limit(parts[-1], self.max_completion_length)
            size = f"{len(worst['completion_ids'])} answers of {self.max_completion_length} tokens at once"
            preflight_longest_batch(self, model, lambda: whole(model, worst), size)
            self.rehearsed = True
        return backward_in_microbatches(parts, lambda part: whole(model, part), self.accelerator.backward)


def _rows(batch: dict, which: torch.Tensor, rows: int) -> dict:
    """The rows `which` of every tensor in a batch that has `rows` of them; the rest as it is."""
    return {
        name: value[which] if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows else value
        for name, value in batch.items()
    }


def _slices(batch: dict, together: int) -> list[dict]:
    """The rows of a batch, shortest answers first, `together` at a time and without columns that only pad."""
    rows = len(batch["completion_ids"])
    order = batch["completion_mask"].sum(1).argsort(stable=True)
    parts = []
    for first in range(0, rows, together):
        part = _rows(batch, order[first : first + together], rows)
        asked, said = (int(part[f"{side}_mask"].sum(1).max()) for side in ("prompt", "completion"))
        for name, value in part.items():
            if isinstance(value, torch.Tensor) and value.dim() == 2:  # prompts are padded on the left
                part[name] = value[:, -asked:] if name.startswith("prompt") else value[:, :said]
        parts.append(part)
    return parts


def pad_to_limit(part: dict, length: int) -> dict:
    """The same answers, as if they had gone on up to `length` tokens."""
    said = part["completion_ids"].shape[1]
    longer = {
        name: torch.nn.functional.pad(value, (0, length - said), value=1)
        for name, value in part.items()
        if isinstance(value, torch.Tensor) and value.dim() == 2 and value.shape[1] == said and "prompt" not in name
    }
    return {**part, **longer}


def recording_reward(reward: Reward) -> Callable[..., list[float]]:
    """Our reward in TRL's form; the last batch's rewards stay readable."""

    def verifiable_reward(completions: list[str], answer: list[str], **_) -> list[float]:
        verifiable_reward.last = [float(value) for value in reward(verifiable_reward.texts, answer)]
        return verifiable_reward.last

    return verifiable_reward


def parity(
    model: PreTrainedModel, asked: Sequence[list[int]], said: Sequence[sampling.Sample], temperature: float
) -> float:
    """How far the sampler's log-probabilities are from the trainer's own: the worst answer's mean difference, nats a
    token, over its last 1,024 tokens. asked: ids of each answer's prompt.
    """
    was_training, worst = model.training, 0.0
    model.eval()
    for prompt, one in zip(asked, said, strict=True):
        last = min(len(one.ids), 1024)  # logits of a whole long answer would be tens of gigabytes
        with torch.no_grad():
            ids = torch.tensor([prompt + one.ids], device=model.device)
            logits = model(input_ids=ids, logits_to_keep=last + 1).logits[0, :-1].float() / temperature
        own = logits.log_softmax(-1).gather(1, ids[0, -last:, None])[:, 0].cpu()
        worst = max(worst, float((own - torch.tensor(one.logprobs[-last:])).abs().mean()))
    model.train(was_training)
    return worst


def require_parity(model: PreTrainedModel, asked, said, temperature: float) -> None:
    """Raises UserError where sampler and trainer are not the same model: every importance ratio would be wrong.

    Phi-4-mini's LongRoPE invites that: transformers takes the short factors for a batch of up to 4,096 tokens and the
    long ones beyond, vLLM decides once, by its max_model_len. `models.load` makes transformers do as vLLM does.
    """
    found = parity(model, asked, said, temperature)
    if found > MAX_LOGPROB_GAP:
        trap = "; with LongRoPE both must choose the same factors, below and above 4,096 tokens"
        raise UserError(
            f"sampler and trainer differ by {found:.3f} nats a token (at most {MAX_LOGPROB_GAP} is rounding): "
            f"nothing is trained{trap if shapes.longrope(model) else ''}"
        )


def _sample(
    trainer: _Trainer, prompts: Sequence[str], samples: int, temperature: float, seed: int, title: str = ""
) -> list[list[sampling.Sample]]:
    """Rollouts of the model as it is now; without a title no bar."""
    tokenizer, model = trainer.processing_class, trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.use_vllm:
        params = sampling.SamplingParams(
            n=samples, temperature=temperature, max_tokens=trainer.max_completion_length, seed=seed
        )
        return sampling.sample(
            model, tokenizer, prompts, params, engine=trainer.engine, title=title, quiet=not title
        )
    asked = [ids for prompt in prompts for ids in [chat.prompt_ids(tokenizer, prompt)] * samples]
    trainer.vllm_generation.temperature = temperature
    _, said, logprobs, _ = trainer.vllm_generation.generate(asked, None, samples)
    stops = sampling.stop_tokens(model, tokenizer)
    flat = [
        sampling.to_sample(tokenizer, list(ids), [one[0] for one in row], stops)
        for ids, row in zip(said, logprobs, strict=True)
    ]
    return [flat[first : first + samples] for first in range(0, len(flat), samples)]


def make_rollout_func(schedule: Temperature, seed: int) -> Callable:
    """Rollouts at the temperature of this step; the first ones are held against the trainer."""
    checked = []

    def rollout_func(prompts: list[str], trainer: _Trainer) -> dict[str, list]:
        step = trainer.state.global_step
        trainer.temperature = schedule(step, trainer.state.max_steps)
        distinct = prompts[:: trainer.num_generations]
        groups = _sample(trainer, distinct, trainer.num_generations, trainer.temperature, seed * 1_000_003 + step)
        flat = [one for group in groups for one in group]
        asked = [chat.prompt_ids(trainer.processing_class, prompt) for prompt in distinct]
        if not checked:
            checked.append(step)
            some = [max(group, key=lambda one: len(one.ids)) for group in groups[:4]]
            require_parity(trainer.accelerator.unwrap_model(trainer.model), asked[:4], some, trainer.temperature)
        trainer.reward_funcs[0].texts = [
            one.text for one in flat
        ]  # with <think>, which TRL's own decoding would keep too
        return {
            "prompt_ids": [ids for ids, group in zip(asked, groups, strict=True) for _ in group],
            "completion_ids": [one.ids for one in flat],
            "logprobs": [one.logprobs for one in flat],
        }

    return rollout_func
