"""One stage, in as many processes as started this: what tests/pipeline/test_processes.py compares.

torchrun --nproc-per-node 2 tests/two_processes.py STAGE STUDENT DATA OUT [sharded] [killed]

accelerate shards models on GPUs only. torch's FSDP2 itself runs on gloo, so "sharded" tells accelerate that it may.
"""

import os
import random
import sys
from dataclasses import replace
from pathlib import Path

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from phi_lab import sampling
from phi_lab.config import schema
from phi_lab.pipeline import launch
from phi_lab.problems import arithmetic
from phi_lab.stages import grpo, grpo_sampling, mid_training, packing, rollout_dpo, sft, training


def recorded(model, tokenizer, prompts, params, **_):
    """The same answers to the same prompt whoever asks: letters drawn by a generator that the prompt seeds."""
    groups = []
    for prompt in prompts:
        chance = random.Random(prompt)
        lengths = (chance.randrange(2, params.max_tokens) for _ in range(params.n))
        ids = [[chance.randrange(5, 480) for _ in range(length)] for length in lengths]
        groups.append([sampling.Sample(one, [0.0] * len(one), tokenizer.decode(one), "length") for one in ids])
    return groups


def two_batches(lengths, row_length):
    """Sixteen rows: at the end of an epoch nothing is left over that two processes would share differently."""
    return packing.pack_best_fit(lengths, row_length)[:16]


def odd(texts, answers):
    """A reward that a third of any answers get."""
    return [1.0 if sum(map(ord, text)) % 3 == 0 else -1.0 for text in texts]


def shard_without_gpu() -> None:
    """Let accelerate take its FSDP2 path on a CPU, as it does on a GPU."""
    plain = AcceleratorState.__init__

    def patched(self, *arguments, fsdp_plugin=None, **rest):
        first = not AcceleratorState._shared_state
        plain(self, *arguments, fsdp_plugin=fsdp_plugin, **rest)
        if first and fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = patched


def die_in_step_three() -> None:
    """As a node would: at once, in every process."""
    real = training.MetricsRecorder.on_step_end

    def on_step_end(self, args, state, control, **rest):
        if state.global_step == 3:
            os._exit(9)
        real(self, args, state, control, **rest)

    training.MetricsRecorder.on_step_end = on_step_end


def main(stage: str, student: Path, data: Path, out: Path, sharded: bool = False) -> None:
    """Train the stage for a few steps on CPU hardware."""
    hardware = schema.HardwareConfig(micro_batch_size=4, fsdp=sharded, gradient_checkpointing=sharded)
    if sharded:
        shard_without_gpu()
    plain = dict(learning_rate=1e-3, batch_size=8, row_length=320, steps=4, muon=False, hardware=hardware)
    right, held, wrong = (data / f"{name}.jsonl" for name in ("train-right", "validation-right", "wrong"))
    if stage == "mid":
        config = schema.LanguageModelingConfig(**plain, eval_steps=2)
        mid_training.train(student, right, held, out, config, seed=0, pack=two_batches)
    elif stage == "sft":
        sft.train(student, right, held, out, schema.LanguageModelingConfig(**plain, documents=40), seed=0)
    elif stage == "dpo":
        few = replace(hardware, micro_batch_size=2)  # passes add up to a batch
        config = schema.DPOConfig(
            1e-3, batch_size=8, max_pairs=16, max_student_nll=float("inf"), muon=False, hardware=few,
        )
        rollout_dpo.train(student, right, wrong, out, config, seed=0)
    else:
        sampling.sample, grpo_sampling.require_parity = recorded, lambda *_: None  # recorded answers are nobody's
        config = schema.GRPOConfig(
            1e-3, steps=3, prompts_per_step=4, group_size=8, candidate_prompts=8, max_new_tokens=12, muon=False,
            hardware=hardware,
        )
        grpo.train(student, arithmetic.sample_problems(8, 1), out, config, seed=0, reward=odd,
                   select=lambda ask, problems, *_: problems)


if __name__ == "__main__":
    name, *folders = sys.argv[1:5]
    if "killed" in sys.argv[5:]:
        die_in_step_three()
    main(name, *map(Path, folders), sharded="sharded" in sys.argv[5:])
    launch.leave()
