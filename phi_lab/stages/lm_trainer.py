"""The seam to TRL's SFTTrainer: how base, mid-training and SFT train on documents."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback, Trainer
from trl import SFTConfig, SFTTrainer

from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core.errors import UserError
from phi_lab.core.records import TrainingRow
from phi_lab.model import checkpoints
from phi_lab.stages import checkpointing, pretraining_text, training
from phi_lab.stages.checkpointing import ResumableTrainer
from phi_lab.stages.muon import muon
from phi_lab.stages.packing import (
    Document,
    Pack,
    collate,
    document,
    microbatches_by_length,
    pack_best_fit,
    rows_dataset,
)
from phi_lab.stages.training import TrainingResult


def fit_rollouts(
    student: Path, rows: Sequence[TrainingRow], validation: Sequence[TrainingRow], out: Path,
    config: LanguageModelingConfig, *, pack: Pack, packed: bool, seed: int, title: str,
) -> TrainingResult:
    """`fit` of the model in `student` on the completions of `rows`, and on replayed text of pretraining, if wanted."""
    tokenizer = checkpoints.load_tokenizer(student)
    documents, held_out = (
        [document(tokenizer, row["prompt"], row["completion"]) for row in side] for side in (rows, validation)
    )
    if config.replay_share:
        tokens = sum(len(ids) for ids, _ in documents) * config.replay_share / (1 - config.replay_share)
        documents = [*documents, *pretraining_text.replay_documents(tokenizer, round(tokens), seed)]
    model = checkpoints.load(student, config.hardware)
    return fit(model, tokenizer, documents, held_out, out, config, pack=pack, packed=packed, seed=seed, title=title)


def fit(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document],
    validation: Sequence[Document], out: Path, config: LanguageModelingConfig, *,
    pack: Pack, packed: bool, seed: int, title: str,
) -> TrainingResult:
    """Train `model` on rows of documents with TRL's SFTTrainer; the model is saved in `out/model`, a row a logged step
    in `out/metrics.jsonl`. packed: rows are padded to `config.row_length`, else to the longest of their batch.

    Raises UserError where no document fits into a row.
    """
    check_documents(documents, validation, config)
    pad, row_length = tokenizer.pad_token_id, config.row_length
    rows = pack([len(ids) for ids, _ in documents], row_length)
    train = rows_dataset(documents, rows, pad, row_length if packed else None)
    held_out = None
    if validation:
        rows = pack_best_fit([len(ids) for ids, _ in validation], row_length)
        held_out = rows_dataset(validation, rows, pad, row_length)
    steps = count_steps(len(train), config)
    lengths = [len(ids) for ids in train["input_ids"]]
    recorder = training.MetricsRecorder(
        out / "metrics.jsonl", steps, title, config.batch_size * (sum(lengths) / len(lengths))
    )
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    longest = sorted(range(len(lengths)), key=lambda i: -lengths[i])[: config.hardware.micro_batch_size]
    trainer = LanguageModelingTrainer(
        micro_batch_size=config.hardware.micro_batch_size, fused_lm_head=config.hardware.liger,
        longest_rows=[train[i] for i in longest],
        model=model, args=trainer_arguments(config, out, steps, seed, evaluate=bool(validation)), train_dataset=train,
        eval_dataset=held_out, processing_class=tokenizer, data_collator=collate(pad), callbacks=[recorder],
        optimizer_cls_and_kwargs=(muon, settings) if config.muon else None,
    )
    started = time.perf_counter()
    # The model changes in here: each step is one batch of rows, their cross-entropy loss and an optimizer step.
    trainer.train(resume_from_checkpoint=checkpointing.resume_point(trainer.args))
    return training.save_and_summarise(trainer, tokenizer, out, recorder, time.perf_counter() - started)


def check_documents(
    documents: Sequence[Document], validation: Sequence[Document], config: LanguageModelingConfig
) -> None:
    """Raises UserError where there is nothing to train on, or nothing to find the best weights by."""
    if config.keep_best and not validation:
        raise UserError("no validation documents are left to find the best weights by: distil more questions")
    if not documents:
        raise UserError("no training documents are left: distil more questions, or loosen the filters")
    for name, side in (("training", documents), ("validation", validation)):
        if side and min(len(ids) for ids, _ in side) > config.row_length:
            raise UserError(
                f"no {name} document fits into {config.row_length:,} tokens: distil with a smaller --max-answer-tokens"
            )


def count_steps(rows: int, config: LanguageModelingConfig) -> int:
    """Optimizer steps that `config` makes of so many rows."""
    if not config.epochs:
        return config.steps
    return min(config.steps, math.ceil(config.epochs * rows / config.batch_size))


def trainer_arguments(config: LanguageModelingConfig, out: Path, steps: int, seed: int, evaluate: bool) -> SFTConfig:
    """The stage's settings in TRL's names."""
    hardware, schedule = config.hardware, {}
    if config.lr_schedule == "warmup_stable_decay":
        schedule = {"num_decay_steps": round(config.decay_ratio * steps), "decay_type": "linear"}
    return training.keep_fp32_outputs_under_fsdp(SFTConfig(
        **training.common_arguments(config, out, steps, seed),
        per_device_train_batch_size=training.per_process_batch(config.batch_size),
        per_device_eval_batch_size=4 * hardware.micro_batch_size,
        weight_decay=config.weight_decay, lr_scheduler_type=config.lr_schedule,
        lr_scheduler_kwargs=schedule, warmup_steps=round(config.warmup_ratio * steps),
        metric_for_best_model="eval_loss" if evaluate else None, load_best_model_at_end=config.keep_best,
        eval_strategy="steps" if evaluate else "no", eval_steps=config.eval_steps or steps,
        save_steps=config.eval_steps or max(20, steps // 8),
        use_liger_kernel=hardware.liger, remove_unused_columns=False, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, logging_steps=min(10, steps),
    ))


class LanguageModelingTrainer(ResumableTrainer, SFTTrainer):
    """SFTTrainer in micro-batches of like length, with the model's own loss (TRL's also measures entropy, a fifth of a
    tiny model's step).
    """

    def __init__(self, *, micro_batch_size: int, fused_lm_head: bool, longest_rows: list[dict], **trl_arguments):
        """fused_lm_head: TRL's head, which never holds the logits of all positions (200,064 a token of Phi-4-mini).
        longest_rows: a micro-batch for `preflight_longest_batch`.
        """
        self.micro_batch_size, self.fused_lm_head, self.longest_rows = micro_batch_size, fused_lm_head, longest_rows
        super().__init__(**trl_arguments)
        self.remove_callback(PrinterCallback)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of a whole batch, computed a few rows of like length at a time: less memory and padding."""
        if num_items_in_batch is None:  # an evaluation: a mean, of packed rows
            if self.fused_lm_head:
                return model(**inputs, fused_lm_head=True).loss
            return Trainer.compute_loss(self, model, inputs)

        def loss(microbatch: dict[str, torch.Tensor]) -> torch.Tensor:
            if not self.fused_lm_head:
                return Trainer.compute_loss(self, model, microbatch, num_items_in_batch=num_items_in_batch)
            value = model(**microbatch, fused_lm_head=True, num_items_in_batch=num_items_in_batch).loss
            return value * self.accelerator.num_processes  # gradients are averaged over processes; so does Trainer

        if self.longest_rows and self.optimizer.state:
            longest = self._prepare_inputs(self.data_collator(self.longest_rows))
            rows, tokens = longest["labels"].shape
            size = f"rows of {tokens} tokens, {rows} at once"
            training.preflight_longest_batch(self, model, lambda: loss(longest), size)
            self.longest_rows = []
        microbatches = microbatches_by_length(inputs, self.micro_batch_size)
        return training.backward_in_microbatches(microbatches, loss, self.accelerator.backward)
