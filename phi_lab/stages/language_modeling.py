"""The seam to TRL's SFTTrainer: what base, mid-training and SFT have in common.

Documents become rows, rows become batches. A *document* is a list of token ids and labels. *Packing* puts several
documents into one row of fixed length; positions restart at every document, from which transformers builds a block-
diagonal mask, so that no document sees its neighbour. *Unpacked*, a row is one document and rows of a batch are
padded to their longest. The only difference from TRL's own packing is the shape: TRL flattens a batch into one very
long row, which dense attention on a CPU pays for dearly (docs/log.md).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback, Trainer
from trl import SFTConfig, SFTTrainer

from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core.errors import UserError
from phi_lab.model import chat, checkpoints
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

IGNORE = -100
Document = tuple[list[int], list[int]]  # token ids, labels
Pack = Callable[[Sequence[int], int], list[list[int]]]


def document(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> Document:
    """Token ids and labels of one question with its answer; loss on the completion and its <|end|>."""
    asked = chat.prompt_ids(tokenizer, prompt)
    said = tokenizer(completion, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    return asked + said, [IGNORE] * len(asked) + said


def pack_best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Best-fit decreasing: each document, longest first, goes to the fullest row that still has room.

    Returns rows as lists of document indices. Every document of at most `row_length` tokens appears exactly once;
    longer ones are left out (arXiv 2404.10830, section 3).
    """
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(row_length + 1)]  # rows by free tokens
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        if length > row_length:
            continue
        room = next((free for free in range(length, row_length + 1) if by_room[free]), None)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, row_length
        else:
            row = by_room[room].pop()
        rows[row].append(index)
        by_room[room - length].append(row)
    return rows


def one_per_row(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """No packing: a document is a row, and the model sees where each one stops."""
    return [[index] for index, length in enumerate(lengths) if length <= row_length]


def rows_dataset(documents: Sequence[Document], rows: list[list[int]], pad: int, row_length: int | None) -> Dataset:
    """Rows of documents as `input_ids`, `labels`, `position_ids`; padded to `row_length` where that is given."""
    columns: dict[str, list] = {"input_ids": [], "labels": [], "position_ids": []}
    for row in rows:
        ids, labels, positions = [], [], []
        for index in row:
            ids += documents[index][0]
            labels += documents[index][1]
            positions += range(len(documents[index][0]))
        missing = (row_length or len(ids)) - len(ids)
        columns["input_ids"].append(ids + [pad] * missing)
        columns["labels"].append(labels + [IGNORE] * missing)
        columns["position_ids"].append(positions + list(range(missing)))
    return Dataset.from_dict(columns)


def collate(pad: int) -> Callable[[list[dict]], dict[str, torch.Tensor]]:
    """Pad rows of a batch to the longest. Padding is a document of its own (positions restart), so it needs no mask."""

    def together(rows: list[dict]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, fill: Callable[[int], list[int]]) -> torch.Tensor:
            return torch.tensor([row[name] + fill(width - len(row[name])) for row in rows])

        return {
            "input_ids": padded("input_ids", lambda n: [pad] * n),
            "labels": padded("labels", lambda n: [IGNORE] * n),
            "position_ids": padded("position_ids", lambda n: list(range(n))),
        }

    return together


def by_length(batch: dict[str, torch.Tensor], rows: int) -> list[dict[str, torch.Tensor]]:
    """The rows of a batch (rows, width), shortest first, `rows` at a time and cut after their last label."""
    width = batch["labels"].shape[1]
    lengths = ((batch["labels"] != IGNORE) * torch.arange(1, width + 1, device=batch["labels"].device)).amax(1)
    return [
        {name: value[some, : max(1, int(lengths[some].max()))] for name, value in batch.items()}
        for some in lengths.argsort(stable=True).split(rows)
    ]


def fit_rows(
    student: Path, rows: Sequence[dict], validation: Sequence[dict], out: Path, config: LanguageModelingConfig, *, pack: Pack,
    packed: bool, seed: int, title: str,
) -> Result:
    """`fit` of the model in `student` on rollouts: rows with `prompt` and `completion`."""
    tokenizer = checkpoints.load_tokenizer(student)
    documents, held = (
        [document(tokenizer, row["prompt"], row["completion"]) for row in part] for part in (rows, validation)
    )
    model = checkpoints.load(student, config.hardware)
    return fit(model, tokenizer, documents, held, out, config, pack=pack, packed=packed, seed=seed, title=title)


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[Document],
    validation: Sequence[Document],
    out: Path,
    config: LanguageModelingConfig,
    *,
    pack: Pack,
    packed: bool,
    seed: int,
    title: str,
) -> Result:
    """Train `model` on rows of documents with TRL's SFTTrainer; save it in `out/model` and a row a log in
    `out/metrics.jsonl`.

    With `config.patience` training ends after so many evaluations without a better validation loss and the `cooldown`
    that follows them, and the best weights are kept.
    """
    if config.patience and not validation:
        raise UserError("no validation documents are left, so nothing can tell when to stop: distil more questions")
    if not documents:
        raise UserError("no training documents are left: distil more questions, or loosen the filters")
    for what, some in (("training", documents), ("validation", validation)):
        if some and min(len(ids) for ids, _ in some) > config.row_length:
            raise UserError(
                f"no {what} document fits into {config.row_length:,} tokens: distil with a smaller --longest"
            )
    width = config.row_length if packed else None
    train = rows_dataset(
        documents, pack([len(d[0]) for d in documents], config.row_length), tokenizer.pad_token_id, width
    )
    held = rows_dataset(validation, pack_best_fit([len(d[0]) for d in validation], config.row_length),
                        tokenizer.pad_token_id, config.row_length) if validation else None
    hardware = config.hardware
    arguments = SFTConfig(
        output_dir=str(out / "trainer"), seed=seed, data_seed=seed, max_steps=config.steps,
        per_device_train_batch_size=per_process_batch(config.batch_size), per_device_eval_batch_size=4 * hardware.micro_batch_size,
        learning_rate=config.learning_rate, max_grad_norm=1.0,
        lr_scheduler_type=config.lr_schedule, warmup_steps=round(config.warmup_ratio * config.steps),
        metric_for_best_model="eval_loss" if held else None, load_best_model_at_end=config.patience > 0,
        eval_strategy="steps" if held else "no", eval_steps=config.eval_steps or config.steps,
        save_strategy="steps", save_steps=config.eval_steps or max(20, config.steps // 8),
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,  # a resumed run counts the same evaluations as one in one piece
        weight_decay=config.weight_decay, use_liger_kernel=hardware.liger, remove_unused_columns=False,
        max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, logging_steps=min(10, config.steps),
        **hardware_arguments(hardware),
    )
    keep_fp32_outputs_under_fsdp(arguments)
    tokens_a_row = sum(map(len, train["input_ids"])) / len(train)
    recorder = Recorder(out / "metrics.jsonl", config.steps, title, config.batch_size * tokens_a_row)
    callbacks = [recorder]
    if config.patience:
        # At a constant rate the validation loss jumps by a few thousandths from one evaluation to the next.
        callbacks.append(Plateau(config.patience, 5e-3, config.cooldown_steps))
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    trainer = _Trainer(
        model=model, args=arguments, train_dataset=train, eval_dataset=held, processing_class=tokenizer,
        data_collator=collate(tokenizer.pad_token_id), callbacks=callbacks,
        optimizer_cls_and_kwargs=(muon, settings) if config.muon else None,
    )
    trainer.rows, trainer.fused = hardware.micro_batch_size, hardware.liger
    longest = sorted(range(len(train)), key=lambda i: -len(train[i]["input_ids"]))
    trainer.longest = [train[i] for i in longest[: hardware.micro_batch_size]]
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=resume_point(out))
    return save_and_summarise(trainer, tokenizer, out, recorder, time.perf_counter() - started)


class Plateau(EarlyStoppingCallback):
    """Early stopping that lets the learning rate fall to zero, over `cooldown` steps, before it stops.

    An evaluation counts against the last one that was better by the threshold, not against the one before it, as
    transformers' own early stopping does: a slow, steady fall is no plateau.
    """

    def __init__(self, patience: int, threshold: float, cooldown: int):
        super().__init__(patience, threshold)
        self.cooldown, self.falls_from, self.mark = cooldown, None, None

    def check_metric_value(self, args, state, control, metric_value):
        """Count evaluations since the validation loss was last better by the threshold."""
        if self.mark is None or metric_value < self.mark - self.early_stopping_threshold:
            self.mark, self.early_stopping_patience_counter = metric_value, 0
        else:
            self.early_stopping_patience_counter += 1

    def factor(self, step: int, steps: int) -> float:
        """Of the learning rate. A plateau that never comes is taken to begin `cooldown` steps before the last one."""
        falls_from = min(steps - self.cooldown, steps if self.falls_from is None else self.falls_from)
        return 1.0 if step < falls_from else max(0.0, 1 - (step - falls_from) / max(1, self.cooldown))

    def on_evaluate(self, args, state, control, metrics, **_):
        """Without a cooldown, stop on the plateau; with one, begin it there."""
        super().on_evaluate(args, state, control, metrics)
        if self.cooldown:
            if control.should_training_stop and self.falls_from is None:
                self.falls_from = state.global_step
            control.should_training_stop = self._cool(state.global_step)

    def on_step_end(self, args, state, control, **_):
        """After the cooldown: measure, save and stop."""
        if self._cool(state.global_step):
            control.should_evaluate = control.should_save = control.should_training_stop = True

    def _cool(self, step: int) -> bool:
        return self.falls_from is not None and step >= self.falls_from + self.cooldown

    def state(self) -> dict:
        """What a checkpoint keeps, by transformers' protocol."""
        names = {name: getattr(self, name) for name in ("early_stopping_patience_counter", "falls_from", "mark")}
        arguments = (self.early_stopping_patience, self.early_stopping_threshold, self.cooldown)
        return {"args": dict(zip(("patience", "threshold", "cooldown"), arguments, strict=True)), "attributes": names}


class _Trainer(SFTTrainer):
    """SFTTrainer with the model's own loss (TRL's also measures entropy, a fifth of a tiny model's step) and, with a
    `Plateau`, its learning rate.
    """

    rows: int  # in one forward and backward pass
    fused: bool  # TRL's head, which never holds the logits of all positions: 200,064 a token of Phi-4-mini
    longest: list[dict]  # rows, for `rehearse`; then empty

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The same loss and gradient, a few rows of like length at a time, so that few positions only pad."""
        if num_items_in_batch is None:  # an evaluation: a mean, of packed rows
            if self.fused:
                return model(**inputs, fused_lm_head=True).loss
            return Trainer.compute_loss(self, model, inputs)

        def loss(part: dict[str, torch.Tensor]) -> torch.Tensor:
            if not self.fused:
                return Trainer.compute_loss(self, model, part, num_items_in_batch=num_items_in_batch)
            found = model(**part, fused_lm_head=True, num_items_in_batch=num_items_in_batch).loss
            return found * self.accelerator.num_processes  # whose gradients are averaged, as Trainer does it

        if self.longest and self.optimizer.state:
            worst = self._prepare_inputs(self.data_collator(self.longest))
            preflight_longest_batch(self, model, lambda: loss(worst), "rows of {1} tokens, {0} at once".format(*worst["labels"].shape))
            self.longest = []
        return backward_in_microbatches(by_length(inputs, self.rows), loss, self.accelerator.backward)

    def create_scheduler(self, num_training_steps, optimizer=None):
        if not any(isinstance(one, Plateau) for one in self.callback_handler.callbacks):
            return super().create_scheduler(num_training_steps, optimizer)

        def factor(step: int) -> float:  # a resumed run has another Plateau by then
            plateau = next(one for one in self.callback_handler.callbacks if isinstance(one, Plateau))
            return plateau.factor(step, num_training_steps)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler
