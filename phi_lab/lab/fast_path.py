"""TRL's loss, with which the stages train, on a batch of the loops that notebooks 04 and 05 write out.

    fast_path.grpo_loss(model, tokenizer, batch, 1.0)  # the same number as minimal_grpo.policy_loss(model, batch, 1.0)
"""

from collections.abc import Sequence
from tempfile import TemporaryDirectory

import torch
import trl
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.core.records import PreferencePair
from phi_lab.stages import minimal_dpo
from phi_lab.stages.minimal_grpo import Batch

# TRL's trainers want a set to train on and some settings; nothing is trained on it here.
QUIET = {"report_to": "none", "use_cpu": True, "bf16": False}
UNUSED = Dataset.from_list([{"prompt": "1+1=", "chosen": "2", "rejected": "3"}] * 4)


@torch.no_grad()
def dpo_loss(
    model: PreTrainedModel, reference: PreTrainedModel, tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[PreferencePair], beta: float,
) -> float:
    """`trl.DPOTrainer`'s sigmoid loss of a batch of pairs, the mean a pair."""
    ids, mask = minimal_dpo.to_rows(tokenizer, pairs)
    upto_last = mask.flip(1).cumsum(1).flip(1) > 0  # the prompt and the completion: all but the padding
    batch = {"input_ids": ids, "attention_mask": upto_last.long(), "completion_mask": mask}
    with TemporaryDirectory() as out:
        arguments = trl.DPOConfig(output_dir=out, beta=beta, **QUIET)
        trainer = trl.DPOTrainer(
            model=model, ref_model=reference, args=arguments, train_dataset=UNUSED, processing_class=tokenizer
        )
        return trainer.compute_loss(model, batch).item()


@torch.no_grad()
def grpo_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch: Batch, temperature: float, epsilon: float = 0.2
) -> float:
    """`trl.GRPOTrainer`'s loss of a batch of rollouts, the mean a sampled token (loss type "dapo")."""
    rows = [mask.nonzero()[:, 0] for mask in batch.mask]  # columns of the sampled tokens; column t is about token t + 1
    prompts = [ids[: columns[0] + 1] for ids, columns in zip(batch.ids, rows, strict=True)]
    completions = [ids[columns + 1] for ids, columns in zip(batch.ids, rows, strict=True)]
    old = [logprobs[columns] for logprobs, columns in zip(batch.old, rows, strict=True)]
    trl_batch = {
        "advantages": batch.advantages[:, 0], "num_items_in_batch": batch.mask.sum(),
        "old_per_token_logps": pad_sequence(old, batch_first=True),
    }
    for name, side, padding in (("prompt", prompts, "left"), ("completion", completions, "right")):
        trl_batch[f"{name}_ids"] = pad_sequence(side, batch_first=True, padding_side=padding)
        ones = [torch.ones_like(ids) for ids in side]
        trl_batch[f"{name}_mask"] = pad_sequence(ones, batch_first=True, padding_side=padding)
    with TemporaryDirectory() as out:
        arguments = trl.GRPOConfig(
            output_dir=out, loss_type="dapo", temperature=temperature, epsilon=epsilon, beta=0.0, num_generations=2,
            per_device_train_batch_size=4, **QUIET,
        )
        trainer = trl.GRPOTrainer(
            model=model, reward_funcs=[lambda completions, **_: [0.0] * len(completions)], args=arguments,
            train_dataset=UNUSED, processing_class=tokenizer,
        )
        trainer.current_gradient_accumulation_steps = 1
        return trainer.compute_loss(model.train(), trl_batch).item()
