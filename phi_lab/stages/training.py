"""What all trainers share: arguments for the hardware, micro-batches, the metrics file with its progress bar, where to
resume, what a stage leaves behind. With several processes each trains on its share of a batch, and the first writes.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from phi_lab.config.schema import DPOConfig, GRPOConfig, HardwareConfig, LanguageModelingConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_rows, remove_folder, replace_folder, write_json, write_rows
from phi_lab.core.marks import fingerprints
from phi_lab.core.memory import peak_rss_mb
from phi_lab.core.progress import Bar
from phi_lab.core.run_folder import StageFolder
from phi_lab.model import checkpoints
from phi_lab.stages import checkpointing

DDP_TIMEOUT = 7 * 24 * 3600  # seconds a process waits for the others: choosing GRPO's prompts takes them hours
Arguments = TypeVar("Arguments", bound=TrainingArguments)


@dataclass(frozen=True)
class TrainingResult:
    """What a stage leaves behind. seconds are those of the training itself.

    train_tokens were read forward and backward; forward_tokens forward only: sampled, or scored by a reference model.
    """

    model: Path
    metrics: list[dict]
    seconds: float
    train_tokens: int
    forward_tokens: int = 0

    @property
    def compute(self) -> float:
        """In training tokens, of which one costs about 6 FLOPs a parameter; a forward pass is a third of that."""
        return self.train_tokens + self.forward_tokens / 3


def world_size() -> int:
    """How many processes train this model together, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def per_process_batch(batch: int) -> int:
    """This process's share of a batch. Raises UserError where it cannot be divided evenly."""
    if batch % world_size():
        raise UserError(f"a batch of {batch} cannot be divided among {world_size()} processes: choose a divisor of it")
    return batch // world_size()


def hardware_arguments(hardware: HardwareConfig) -> dict:
    """The trainer's arguments that depend on the machine. Several processes shard the model with FSDP2 if asked to."""
    gpu, sharded = torch.cuda.is_available(), hardware.fsdp and world_size() > 1
    half = checkpoints.half_precision() if gpu else None  # float16 is computed with a loss scaler
    fsdp_config = {"version": 2, "activation_checkpointing": hardware.gradient_checkpointing,
                   "state_dict_type": "SHARDED_STATE_DICT"}
    # Every micro-batch adds its gradient to the shards: one that waits for the last would outlive
    # `preflight_longest_batch`, unsharded and in bfloat16.
    accumulation = {"gradient_accumulation_kwargs": {"sync_each_batch": True}} if sharded else None
    return {
        "optim": hardware.optimizer, "activation_checkpointing": hardware.gradient_checkpointing and not sharded,
        "bf16": half == "bfloat16", "fp16": half == "float16", "use_cpu": not gpu,
        "ddp_backend": "gloo" if world_size() > 1 and not gpu else None,
        "fsdp": sharded or None, "fsdp_config": fsdp_config if sharded else None, "report_to": "none",
        "disable_tqdm": True, "accelerator_config": accumulation, "ddp_timeout": DDP_TIMEOUT,
    }


def common_arguments(
    config: LanguageModelingConfig | DPOConfig | GRPOConfig, out: Path, steps: int, seed: int
) -> dict:
    """The arguments that are the same in every stage's trainer, and those for its hardware."""
    return {
        "output_dir": str(out / "trainer"), "seed": seed, "data_seed": seed, "max_steps": steps,
        "learning_rate": config.learning_rate, "max_grad_norm": 1.0, "save_strategy": "steps",
        **hardware_arguments(config.hardware),
    }


def keep_fp32_outputs_under_fsdp(arguments: Arguments) -> Arguments:
    """The same arguments, with which FSDP2 computes in bfloat16 but returns losses and log-probabilities unrounded, and
    adds gradients in float32. accelerate's default rounds the model's outputs to bfloat16, whose values near 3,000 are
    16 apart; Rollout DPO's sums over a response lie there.
    """
    if arguments.fsdp_plugin_args and arguments.bf16:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, None)
        arguments.fsdp_plugin_args["mixed_precision_policy"] = policy
    return arguments


class MetricsRecorder(TrainerCallback):
    """Writes metrics.jsonl during training and moves the progress bar. A resumed run continues the file."""

    ALWAYS = ("loss", "eval_loss", "learning_rate", "grad_norm")

    def __init__(
        self, path: Path, steps: int, title: str, tokens_per_step: float = 0.0, names: tuple[str, ...] = ()
    ):
        """tokens_per_step: 0 where the trainer counts its tokens itself. names: metrics besides `ALWAYS`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.steps, self.title, self.names = path, steps, title, (*self.ALWAYS, *names)
        self.tokens_per_step = tokens_per_step
        self.rows: list[dict] = []
        self.seconds_before_resume = 0.0

    def on_train_begin(self, args, state, control, **_):
        if state.global_step:
            self.rows = checkpointing.logged_rows(args, state, self.path)
            self.seconds_before_resume = self.rows[-1]["seconds"] if self.rows else 0.0
        if state.is_world_process_zero:
            write_rows(self.path, self.rows)
        self.started = time.perf_counter() - self.seconds_before_resume
        self.bar = Bar(self.steps, self.title, "step", quiet=not state.is_world_process_zero)
        self.bar.update(state.global_step)

    def on_log(self, args, state, control, logs=None, **_):
        values = {name: float(logs[name]) for name in self.names if name in logs}
        if not values:
            return
        seconds = round(time.perf_counter() - self.started, 2)
        row = {"step": state.global_step, **values, "tokens": self.tokens(state), "seconds": seconds}
        self.rows.append(row)
        if state.is_world_process_zero:
            append_rows(self.path, [row])
        self.bar.set_postfix(
            {name: f"{value:.3f}" for name, value in values.items() if "loss" in name or "reward" in name}
        )

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            write_rows(checkpointing.folder_of(args, state.global_step) / checkpointing.METRICS, self.rows)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()

    def tokens(self, state) -> int:
        """Tokens of training up to now."""
        return int(state.global_step * self.tokens_per_step) or state.num_input_tokens_seen


def backward_in_microbatches(
    microbatches: list, loss: Callable[[object], torch.Tensor], backward: Callable[[torch.Tensor], None]
) -> torch.Tensor:
    """The loss of a batch that goes forward and backward one micro-batch at a time; the backward pass of the last one
    is left to the trainer.

    loss: of one micro-batch, weighted so that losses and gradients of the batch simply add up: a sum over its tokens or
    pairs divided by the number in the whole batch.
    """
    *others, last = microbatches
    before = 0.0
    for microbatch in others:
        value = loss(microbatch)
        backward(value)
        before += value.detach()
    return loss(last) + before


def preflight_longest_batch(
    trainer: Trainer, model: torch.nn.Module, loss: Callable[[], torch.Tensor], size: str
) -> None:
    """Send a stage's longest micro-batch forward and backward, once the optimizer's state is in memory, and drop its
    gradient: too little memory shows in the first minute and not in the tenth hour.

    loss: of that micro-batch; size: its description. Raises UserError where it does not fit.
    """
    logged = trainer._metrics["train"]  # TRL's trainers log every forward pass; this one shall leave no trace
    before = {name: len(values) for name, values in logged.items()}
    try:
        trainer.accelerator.backward(loss())
    except torch.OutOfMemoryError:
        raise UserError(f"the longest batch, {size}, does not fit into the GPU's memory: choose shorter answers, "
                        "another --scale or more GPUs; `phi-lab plan` counts the memory") from None
    model.zero_grad()
    for name in list(logged):
        del logged[name][before.get(name, 0) :]


def save_and_summarise(
    trainer: Trainer, tokenizer: PreTrainedTokenizerFast, out: Path, recorder: MetricsRecorder, seconds: float,
    train_tokens: int | None = None, forward_tokens: int = 0,
) -> TrainingResult:
    """Save the model in `out/model`, mark the stage as finished, delete the trainer's own checkpoints, in this order,
    and return the stage's result. Without train_tokens the recorder's count is taken.
    """
    folder = StageFolder(out)
    tokens = recorder.tokens(trainer.state) if train_tokens is None else train_tokens
    seconds += recorder.seconds_before_resume
    result = TrainingResult(folder.model, recorder.rows, seconds, tokens, forward_tokens)
    full_weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        beside = out / "model.part"
        remove_folder(beside)  # of a stage that was killed here
        checkpoints.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, beside, full_weights)
        replace_folder(beside, folder.model)
        mark_finished(folder, result)
        remove_folder(folder.trainer)
    trainer.accelerator.wait_for_everyone()
    return result


def mark_finished(folder: StageFolder, result: TrainingResult, **measured: float) -> None:
    """Write done.json, the mark of a finished stage: its cost, what else was `measured`, and fingerprints of its model
    and its metrics.
    """
    write_json(folder.done, {
        "seconds": round(result.seconds, 1), "train_tokens": result.train_tokens,
        "forward_tokens": result.forward_tokens, "peak_rss_mb": peak_rss_mb(), **measured,
        "files": fingerprints(folder.path, [folder.model, folder.metrics]),
    })
