"""What every trainer shares: its arguments for the hardware, the metrics file with its progress bar, batches in parts,
where to resume, what a stage leaves behind. In several processes each trains on its share of a batch, and the first
writes.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from phi_lab.config.schema import HardwareConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_rows, write_rows
from phi_lab.core.progress import Bar
from phi_lab.model import checkpoints

WAIT = 7 * 24 * 3600  # seconds that a process waits for the others: to choose GRPO's prompts takes them hours


@dataclass(frozen=True)
class Result:
    """What a stage leaves behind. seconds are those of the training itself.

    train_tokens were read forward and backward; forward_tokens forward only: sampled, or scored by a reference.
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


def processes() -> int:
    """How many processes train this model together, by torchrun's word."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def per_process_batch(batch: int) -> int:
    """This process's part of a batch. Raises UserError where it cannot be divided evenly."""
    if batch % processes():
        raise UserError(f"a batch of {batch} cannot be divided among {processes()} processes: choose a divisor of it")
    return batch // processes()


def hardware_arguments(hardware: HardwareConfig) -> dict:
    """The trainer's arguments that depend on the machine. Several processes shard the model with FSDP2 if asked to."""
    gpu, sharded = torch.cuda.is_available(), hardware.fsdp and processes() > 1
    wrapped = {"version": 2, "activation_checkpointing": hardware.gradient_checkpointing,
               "state_dict_type": "SHARDED_STATE_DICT"}
    # Each pass adds to the shards: what waits for the last pass would survive `rehearse`, unsharded and in bfloat16.
    accumulation = {"gradient_accumulation_kwargs": {"sync_each_batch": True}} if sharded else None
    return {
        "optim": hardware.optimizer, "activation_checkpointing": hardware.gradient_checkpointing and not sharded, "bf16": gpu,
        "use_cpu": not gpu, "ddp_backend": "gloo" if processes() > 1 and not gpu else None,
        "fsdp": sharded or None, "fsdp_config": wrapped if sharded else None, "report_to": "none", "disable_tqdm": True,
        "accelerator_config": accumulation, "ddp_timeout": WAIT,
    }


def keep_fp32_outputs_under_fsdp(config: TrainingArguments) -> None:
    """Have FSDP2 compute in bfloat16 but hand out losses and log-probabilities as they are, and add gradients in
    float32. accelerate would round what the model returns to bfloat16, whose numbers near 3,000 are 16 apart: Rollout
    DPO's sums over an answer lie there.
    """
    if config.fsdp_plugin_args and config.bf16:
        config.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32, None)


class Recorder(TrainerCallback):
    """Writes metrics.jsonl as training goes and moves the progress bar. A resumed run continues the file."""

    ALWAYS = ("loss", "eval_loss", "learning_rate", "grad_norm")

    def __init__(self, path: Path, steps: int, title: str, tokens_a_step: float = 0.0, names: tuple[str, ...] = ()):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.steps, self.title, self.names = path, steps, title, (*self.ALWAYS, *names)
        self.tokens_a_step = tokens_a_step  # 0: the trainer counts for itself
        self.rows: list[dict] = []
        self.before = 0.0  # seconds spent before a resume

    def on_train_begin(self, args, state, control, **_):
        if state.global_step and self.path.exists():
            lines = self.path.read_text().splitlines(keepends=True)
            rows = [json.loads(line) for line in lines if line.endswith("}\n")]  # a kill may cut the last line
            self.rows = [row for row in rows if row["step"] <= state.global_step]
            self.before = self.rows[-1]["seconds"] if self.rows else 0.0
        if state.is_world_process_zero:
            write_rows(self.path, self.rows)
        self.started = time.perf_counter() - self.before
        self.bar = Bar(self.steps, self.title, "step", quiet=not state.is_world_process_zero)
        self.bar.update(state.global_step)

    def on_log(self, args, state, control, logs=None, **_):
        kept = {name: float(logs[name]) for name in self.names if name in logs}
        if not kept:
            return
        seconds = round(time.perf_counter() - self.started, 2)
        row = {"step": state.global_step, **kept, "tokens": self.read(state), "seconds": seconds}
        self.rows.append(row)
        if state.is_world_process_zero:
            append_rows(self.path, [row])
        self.bar.set_postfix(
            {name: f"{value:.3f}" for name, value in kept.items() if "loss" in name or "reward" in name}
        )

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()

    def read(self, state) -> int:
        """Tokens of training up to now."""
        return int(state.global_step * self.tokens_a_step) or state.num_input_tokens_seen


def backward_in_microbatches(
    parts: list, loss: Callable[[object], torch.Tensor], backward: Callable[[torch.Tensor], None]
) -> torch.Tensor:
    """The loss of a batch that goes through forward and backward part by part; the last part's backward is left to
    the trainer.

    Each part's loss is a sum over tokens or pairs divided by the whole batch's number of them, so they may simply be
    added.
    """
    *others, last = parts
    before = 0.0
    for part in others:
        value = loss(part)
        backward(value)
        before += value.detach()
    return loss(last) + before


def preflight_longest_batch(trainer: Trainer, model: torch.nn.Module, loss: Callable[[], torch.Tensor], what: str) -> None:
    """Send the longest batch of a stage forward and backward, once the optimizer has its moments, and forget its
    gradient: too little memory shows in the first minute and not in the tenth hour.

    loss: of that batch; what: its size in words. Raises UserError where it does not fit.
    """
    logged = trainer._metrics["train"]  # TRL's trainers note what each pass was like
    before = {name: len(values) for name, values in logged.items()}
    try:
        trainer.accelerator.backward(loss())
    except torch.OutOfMemoryError:
        raise UserError(f"the longest batch, {what}, does not fit into the GPU's memory: choose shorter answers, "
                        "another --scale or more GPUs; `phi-lab plan` counts the memory") from None
    model.zero_grad()
    for name in list(logged):
        del logged[name][before.get(name, 0) :]


def resume_point(out: Path) -> str | None:
    """The newest trainer checkpoint of an interrupted stage, if there is one."""
    folder = out / "trainer"
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").is_file():  # written last: saving was interrupted
            shutil.rmtree(checkpoint, ignore_errors=True)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def save_and_summarise(
    trainer: Trainer, tokenizer: PreTrainedTokenizerFast, out: Path, recorder: Recorder, seconds: float,
    train_tokens: int | None = None, forward_tokens: int = 0,
) -> Result:
    """Save the model, drop the trainer's own checkpoints, say what happened. Without train_tokens the recorder's
    count is taken.
    """
    whole = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None  # from all shards
    if trainer.is_world_process_zero():
        checkpoints.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, out / "model", whole)
        shutil.rmtree(out / "trainer", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trained = recorder.read(trainer.state) if train_tokens is None else train_tokens
    return Result(out / "model", recorder.rows, seconds + recorder.before, trained, forward_tokens)
