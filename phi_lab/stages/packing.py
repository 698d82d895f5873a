"""Documents become rows, rows become batches: what base, mid-training and SFT train on.

A *document* is a list of token ids and labels. *Packing* puts several documents into one row of fixed length; positions
restart at every document, from which transformers builds a block-diagonal mask, so that no document attends to its
neighbour. *Unpacked*, a row is one document, and the rows of a batch are padded to the longest. TRL's own packing
differs in shape: it flattens a batch into one very long row, which is slow in dense attention on a CPU (docs/log.md).
It also takes the loss from the first token of every document. Here a question's tokens have none anyway; text of
pretraining keeps it, so in a packed row its first token is predicted from the neighbour's last one.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from phi_lab.core.records import PreferencePair
from phi_lab.model import chat

IGNORE = -100  # the label of a token without loss
Document = tuple[list[int], list[int]]  # token ids, labels
Pack = Callable[[Sequence[int], int], list[list[int]]]  # (document lengths, row length) -> document indices of each row


def document(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> Document:
    """Token ids and labels of a prompt with its completion; the loss covers the completion and its <|end|>."""
    prompt_ids = chat.prompt_ids(tokenizer, prompt)
    completion_ids = chat.completion_ids(tokenizer, completion) + [tokenizer.eos_token_id]
    return prompt_ids + completion_ids, [IGNORE] * len(prompt_ids) + completion_ids


def pair_document(
    tokenizer: PreTrainedTokenizerFast, pair: PreferencePair, side: Literal["chosen", "rejected"]
) -> Document:
    """Token ids and labels of a preference pair's prompt with one of its sides; the loss covers that side, and its
    <|end|> where it is a whole completion.
    """
    if "prefix" not in pair:
        return document(tokenizer, pair["prompt"], pair[side])
    before = chat.prompt_ids(tokenizer, pair["prompt"]) + chat.completion_ids(tokenizer, pair["prefix"])
    whole = chat.prompt_ids(tokenizer, pair["prompt"]) + chat.completion_ids(tokenizer, pair["prefix"] + pair[side])
    return whole, [IGNORE] * len(before) + whole[len(before) :]


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
    """No packing: each document of at most `row_length` tokens is a row, so the model sees where each one ends."""
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
    """A data collator that pads rows to the longest. Padding is a document of its own (positions restart), so it needs
    no mask.
    """

    def collator(rows: list[dict]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, fill: Callable[[int], list[int]]) -> torch.Tensor:
            return torch.tensor([row[name] + fill(width - len(row[name])) for row in rows])

        return {
            "input_ids": padded("input_ids", lambda n: [pad] * n),
            "labels": padded("labels", lambda n: [IGNORE] * n),
            "position_ids": padded("position_ids", lambda n: list(range(n))),
        }

    return collator


def microbatches_by_length(batch: dict[str, torch.Tensor], rows: int) -> list[dict[str, torch.Tensor]]:
    """The batch (rows, width) in micro-batches of `rows` rows, shortest first, each cut after its last label."""
    width = batch["labels"].shape[1]
    lengths = ((batch["labels"] != IGNORE) * torch.arange(1, width + 1, device=batch["labels"].device)).amax(1)
    return [
        {name: value[indices, : max(1, int(lengths[indices].max()))] for name, value in batch.items()}
        for indices in lengths.argsort(stable=True).split(rows)
    ]
