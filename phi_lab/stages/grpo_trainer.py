"""The seam between grpo.py and TRL's GRPOTrainer: our advantages in place of TRL's, rows without an advantage left out,
micro-batches of like length, and log-probabilities at the temperature of the step.
"""

import os
from collections.abc import Callable, Sequence
from functools import wraps
from types import MethodType

import torch
import trl
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback
from trl.trainer.utils import add_fused_lm_head

from phi_lab.config import schema
from phi_lab.config.schema import GRPOConfig
from phi_lab.core.seeds import derive_seed
from phi_lab.model import chat, shapes
from phi_lab.problems.problem import Problem
from phi_lab.stages import training
from phi_lab.stages.checkpointing import ResumableTrainer
from phi_lab.stages.grpo_sampling import Reward, TemperatureSchedule, make_rollout_func, recording_reward
from phi_lab.stages.muon import muon

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is experimental; constraints.txt pins TRL

Advantage = Callable[[torch.Tensor, torch.Generator], torch.Tensor]  # rewards (prompts, group) -> advantages


# ------------------------------------------------------------------ data and arguments


def problems_dataset(problems: Sequence[Problem]) -> Dataset:
    """Problems in TRL's columns."""
    return Dataset.from_list([{"prompt": problem.prompt, "answer": problem.answer} for problem in problems])


def vllm_arguments(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], config: GRPOConfig
) -> dict:
    """GRPOConfig's arguments for the engine vllm, beside the trainer on each GPU or on a server; {} for another engine.

    Without TRL's importance-sampling correction: sampler and trainer are required to agree (`require_parity`), and the
    correction reads all rows of a batch at once.
    """
    if config.hardware.engine != "vllm":
        return {}
    if server := os.environ.get("PHI_LAB_VLLM"):
        return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": server,
                "vllm_importance_sampling_correction": False}
    longest = max(len(chat.prompt_ids(tokenizer, problem.prompt)) for problem in problems) + config.max_new_tokens
    return {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": schema.VLLM_SHARE,
            "vllm_max_model_length": max(longest, shapes.min_vllm_context(model)),
            "vllm_importance_sampling_correction": False}


# ------------------------------------------------------------------ the trainer


class GRPOTrainer(ResumableTrainer, trl.GRPOTrainer):
    """TRL's GRPOTrainer whose temperature, reward and advantages are plain functions, and whose rows with zero
    advantage cost nothing.
    """

    def __init__(
        self, *, config: GRPOConfig, seed: int, reward: Reward, advantage: Advantage, schedule: TemperatureSchedule,
        **trl_arguments,
    ):
        super().__init__(
            reward_funcs=[recording_reward(reward)], rollout_func=make_rollout_func(schedule, seed), **trl_arguments
        )
        self.advantage, self.seed, self.engine = advantage, seed, config.hardware.engine
        self.micro_batch_size, self.preflight_done = config.hardware.micro_batch_size, False
        if config.muon:  # GRPOTrainer's constructor does not take an optimizer class
            self.optimizer_cls_and_kwargs = (muon, {"lr": config.learning_rate, "weight_decay": 0.0})
        self.remove_callback(PrinterCallback)
        logprobs_at_current_temperature(self)

    def _generate_and_score_completions(self, inputs):
        """TRL's batch of scored rollouts with our advantages; rows whose advantage is zero are left out."""
        batch = super()._generate_and_score_completions(inputs)
        accelerator = self.accelerator
        rewards = torch.tensor(self.reward_funcs[0].last).view(-1, self.num_generations)
        # Every process sees the groups of all and draws the same random numbers, so all agree on the advantages.
        all_rewards = accelerator.gather(rewards.to(accelerator.device)).cpu()
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.state.global_step))
        all_advantages = self.advantage(all_rewards, generator)
        first = accelerator.process_index * len(rewards)
        advantages = all_advantages[first : first + len(rewards)].to(accelerator.device).flatten()
        log = self._metrics["train"]
        log["zero_variance_share"].append((all_rewards.std(1) == 0).float().mean().item())
        log["kept_share"].append((all_advantages != 0).float().mean().item())
        log["mean_length"].append(accelerator.gather(batch["completion_mask"].sum(1).float()).mean().item())
        log["temperature"].append(self.temperature)
        most_rows = int((all_advantages.view(accelerator.num_processes, -1) != 0).sum(1).max())
        batch = drop_zero_advantages(batch, advantages, most_rows)
        completion_tokens = batch["completion_mask"].sum(1)
        loss_tokens = (completion_tokens * (batch["advantages"] != 0)).sum()
        read_tokens = completion_tokens.sum() + batch["prompt_mask"].sum()
        batch["num_items_in_batch"], trained_tokens = accelerator.gather(
            torch.stack([loss_tokens, read_tokens])[None]
        ).sum(0)
        log["trained_tokens"].append(float(trained_tokens))
        return batch

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of a whole batch, computed a few rollouts of like length at a time: less memory and padding."""
        batch_loss, microbatches = super().compute_loss, microbatches_by_length(inputs, self.micro_batch_size)
        if not self.preflight_done and self.optimizer.state:
            longest = pad_to_limit(microbatches[-1], self.max_completion_length)
            size = f"{len(longest['completion_ids'])} answers of {self.max_completion_length} tokens at once"
            training.preflight_longest_batch(self, model, lambda: batch_loss(model, longest), size)
            self.preflight_done = True
        return training.backward_in_microbatches(
            microbatches, lambda microbatch: batch_loss(model, microbatch), self.accelerator.backward
        )


def logprobs_at_current_temperature(trainer: trl.GRPOTrainer) -> None:
    """Divide logits by the temperature of the current step; TRL's head divides by the one it was built with."""
    model = trainer.model.get_base_model() if isinstance(trainer.model, PeftModel) else trainer.model
    built, heads = model.forward, {}

    @wraps(type(model).forward)  # `generate` inspects its signature
    def forward(self, *arguments, fused_lm_head=False, **rest):
        if not fused_lm_head:
            return built(*arguments, **rest)
        if trainer.temperature not in heads:
            outer, self.forward = self.forward, built
            add_fused_lm_head(self, temperature=trainer.temperature, outputs=("log_probs", "entropy"))
            heads[trainer.temperature], self.forward = self.forward, outer
        return heads[trainer.temperature](*arguments, fused_lm_head=True, **rest)

    model.forward = MethodType(forward, model)


# ------------------------------------------------------------------ batches


def select_rows(batch: dict, indices: torch.Tensor) -> dict:
    """The rows `indices` of every tensor of TRL's batch that has a row for each rollout; the rest unchanged."""
    rows = len(batch["completion_ids"])
    return {
        name: value[indices] if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows else value
        for name, value in batch.items()
    }


def drop_zero_advantages(batch: dict, advantages: torch.Tensor, rows: int) -> dict:
    """The rollouts of the batch with an advantage, filled up to `rows` rows (at least one) with an advantage of zero:
    every process needs as many forward passes as the others.
    """
    kept = (advantages != 0).nonzero()[:, 0]
    filler = kept.new_zeros(max(rows, 1) - len(kept))
    batch = select_rows(batch, torch.cat((kept, filler)))
    return {**batch, "advantages": torch.cat((advantages[kept], advantages.new_zeros(len(filler))))}


def microbatches_by_length(batch: dict, rows: int) -> list[dict]:
    """The batch in micro-batches of `rows` rollouts, shortest completions first, without columns of padding only."""
    order = batch["completion_mask"].sum(1).argsort(stable=True)
    microbatches = []
    for indices in order.split(rows):
        part = select_rows(batch, indices)
        prompt, completion = (int(part[f"{side}_mask"].sum(1).max()) for side in ("prompt", "completion"))
        for name, value in part.items():
            if isinstance(value, torch.Tensor) and value.dim() == 2:  # prompts are padded on the left
                part[name] = value[:, -prompt:] if name.startswith("prompt") else value[:, :completion]
        microbatches.append(part)
    return microbatches


def pad_to_limit(microbatch: dict, length: int) -> dict:
    """The same rollouts, as if their completions had been sampled up to `length` tokens."""
    tokens = microbatch["completion_ids"].shape[1]
    longer = {
        name: torch.nn.functional.pad(value, (0, length - tokens), value=1)
        for name, value in microbatch.items()
        if isinstance(value, torch.Tensor) and value.dim() == 2 and value.shape[1] == tokens and "prompt" not in name
    }
    return {**microbatch, **longer}
