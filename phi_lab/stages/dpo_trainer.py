"""The seam between rollout_dpo.py and TRL's DPOTrainer: pairs of like length in one micro-batch, and a prompt that its
two responses share in one forward pass.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from datasets import Dataset, load_from_disk
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback

from phi_lab.core.records import PreferencePair
from phi_lab.stages import training
from phi_lab.stages.checkpointing import ResumableTrainer
from phi_lab.stages.packing import IGNORE, pair_document


def pairs_dataset(
    tokenizer: PreTrainedTokenizerFast, rows: Sequence[PreferencePair], arguments: trl.DPOConfig
) -> tuple[Dataset, list[int]]:
    """The pairs as token ids in TRL's columns, and how many tokens each pair has, its prompt counted twice. What both
    sides begin with (`prefix`) is part of the prompt.
    """
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for row in rows:
        for side in ("chosen", "rejected"):
            ids, labels = pair_document(tokenizer, row, side)
            shared = labels.count(IGNORE)
            columns[f"{side}_ids"].append(ids[shared:])
        columns["prompt_ids"].append(ids[:shared])
    lengths = [2 * len(prompt) + len(good) + len(bad) for prompt, good, bad in zip(*columns.values(), strict=True)]
    folder = Path(arguments.output_dir) / "pairs"
    with arguments.main_process_first(local=False):  # TRL caches the reference's log-probabilities beside a set on disk
        if arguments.process_index == 0:
            Dataset.from_dict(columns).save_to_disk(folder)
        return load_from_disk(folder), lengths


class DPOTrainer(ResumableTrainer, trl.DPOTrainer):
    """TRL's DPOTrainer in micro-batches of pairs of like length, so that little is padding. Without the fused head a
    prompt is read once for both of its responses (`shared_prefix_logprobs`).
    """

    def __init__(
        self, *, micro_batch_size: int, fused_lm_head: bool, lengths: list[int], train_dataset: Dataset, **trl_arguments
    ):
        """micro_batch_size: pairs in one forward and backward pass; fused_lm_head: TRL's, which never holds all logits;
        lengths: tokens of each pair, of which the longest are for `preflight_longest_batch`.
        """
        # First, since TRL's constructor computes the reference's log-probabilities.
        self.micro_batch_size, self.fused_lm_head = micro_batch_size, fused_lm_head
        self.longest_pairs = sorted(range(len(lengths)), key=lambda index: -lengths[index])[:micro_batch_size]
        super().__init__(train_dataset=train_dataset, **trl_arguments)
        self.ref_model = None  # all pairs are scored
        self.remove_callback(PrinterCallback)

    def _prepare_dataset(self, dataset, *_):
        """Unchanged: it is tokenised already."""
        return dataset

    def _with_logprobs(self, model):
        """What TRL calls as the model, and gets log-probabilities from."""
        return model if self.fused_lm_head else partial(shared_prefix_logprobs, model)

    def _microbatches(self, batch, pairs: int):
        return microbatches_by_length(batch, pairs, shared_prefix=not self.fused_lm_head)

    def compute_ref_log_probs(self, model, inputs):
        """The reference's log-probabilities of the chosen and of the rejected responses, (pairs,) each."""
        results, indices = [], []
        for pair_indices, microbatch in self._microbatches(inputs, 2 * self.micro_batch_size):
            results.append(super().compute_ref_log_probs(self._with_logprobs(model), microbatch))
            indices.append(pair_indices)
        order = torch.cat(indices).argsort()
        return tuple(torch.cat(side)[order] for side in zip(*results, strict=True))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of a whole batch, computed a few pairs at a time; each micro-batch counts by its pairs.

        That is exact for DPO's loss. SFT's is TRL's mean over the tokens of a micro-batch, so where these are sorted by
        length a token of short answers counts more than one of long ones (docs/log.md, 110).
        """
        batch_loss, model_with_logprobs = super().compute_loss, self._with_logprobs(model)
        if self.longest_pairs and self.optimizer.state:
            rows = [self.train_dataset[index] for index in self.longest_pairs]
            longest = self._prepare_inputs(self.data_collator(rows))
            training.preflight_longest_batch(
                self, model, lambda: batch_loss(model_with_logprobs, longest), f"the longest {len(rows)} pairs at once"
            )
            self.longest_pairs = []
        pairs = len(inputs["input_ids"]) // 2

        def loss(part: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> torch.Tensor:
            pair_indices, microbatch = part
            return batch_loss(model_with_logprobs, microbatch) * len(pair_indices) / pairs

        microbatches = list(self._microbatches(inputs, self.micro_batch_size))
        return training.backward_in_microbatches(microbatches, loss, self.accelerator.backward)


def microbatches_by_length(
    batch: dict[str, torch.Tensor], pairs: int, shared_prefix: bool
) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """TRL's batch in micro-batches of `pairs` pairs, shortest first, each cut after its last token: (indices of the
    pairs, micro-batch).

    batch: tensors (2 x pairs, width), chosen responses above the rejected ones, and one value a pair, (pairs,).
    shared_prefix: a pair is as long as its prompt and both responses; else as the longer of its two rows.
    """
    total = len(batch["input_ids"]) // 2
    widths = batch["attention_mask"].sum(1).view(2, total)
    lengths = widths[0] + batch["completion_mask"][total:].sum(1) if shared_prefix else widths.amax(0)
    for indices in lengths.argsort(stable=True).split(pairs):
        rows, width = torch.cat([indices, indices + total]), int(widths[:, indices].max())
        yield indices, {
            name: value[rows, :width] if value.dim() > 1 else value[indices] for name, value in batch.items()
        }


def shared_prefix_logprobs(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor,
    fused_lm_head: bool, **rest,
) -> SimpleNamespace:
    """What TRL's model returns, computed from one row a pair: the prompt, its chosen and its rejected response, neither
    of which attends to the other (prefix sharing, arXiv 2410.20305). All logits are held at once; TRL's head, which
    goes through the vocabulary in chunks, is slower on a small vocabulary.

    input_ids, attention_mask, labels: (2 x pairs, width), chosen above rejected, padded on the right, -100 where a
    token is not scored. Each result: (2 x pairs, width - 1), zero there.
    """
    pairs, width = len(input_ids) // 2, input_ids.shape[1]
    scored = labels != IGNORE
    prompt = scored[:pairs].int().argmax(1, keepdim=True)  # tokens of each prompt, then of each response
    chosen, rejected = (attention_mask.sum(1, keepdim=True) - prompt.repeat(2, 1)).split(pairs)
    column = torch.arange(int((prompt + chosen + rejected).max()), device=input_ids.device)[None]
    # of each column: 0 the prompt, 1 the chosen response, 2 the rejected one, 3 padding
    part = sum(column >= end for end in (prompt, prompt + chosen, prompt + chosen + rejected)).to(torch.int8)
    position = torch.where(part == 2, column - chosen, column).clamp(max=width - 1)  # in the response's own row
    ids = torch.where(part == 2, input_ids[pairs:].gather(1, position), input_ids[:pairs].gather(1, position))
    visible = (column[..., None] >= column[:, None]) & ((part[:, None] == 0) | (part[:, None] == part[..., None]))
    output = model(input_ids=ids, position_ids=position, attention_mask=visible[:, None], **rest)

    # Where the logits of each position of TRL's rows are: the rejected response lies after the chosen one.
    source = column[:, : width - 1].repeat(2 * pairs, 1)
    source[pairs:] += torch.where(source[pairs:] < prompt, 0, chosen)
    source = source.clamp(max=column.shape[1] - 1)

    def as_trl_rows(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(pairs, any) -> the values at `index` of TRL's rows, (2 x pairs, width - 1)."""
        both = values.gather(1, torch.cat(index.split(pairs), 1))
        return torch.cat(both.split(width - 1, 1)) * scored[:, 1:]

    logits = output.logits.float()
    log_softmax = logits.log_softmax(-1)
    log_probs = as_trl_rows(log_softmax.flatten(1), source * logits.shape[-1] + input_ids[:, 1:])
    with torch.no_grad():  # TRL's metrics
        entropy, mean, top = (
            as_trl_rows(values, source)
            for values in (-(log_softmax.exp() * log_softmax).sum(-1), logits.mean(-1), log_softmax.amax(-1))
        )
    return SimpleNamespace(
        log_probs=log_probs, entropy=entropy, mean_logits=mean, is_top1=log_probs >= top,
        aux_loss=output.get("aux_loss"),
    )
