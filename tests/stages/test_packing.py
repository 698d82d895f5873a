"""Packing: every document once, no row too long, and no document attends to its neighbour."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_lab.config.schema import HardwareConfig, LanguageModelingConfig
from phi_lab.core.errors import UserError
from phi_lab.model import checkpoints, shapes
from phi_lab.stages import lm_trainer, packing

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


@settings(max_examples=300)
@given(LENGTHS, st.integers(1, 40))
def test_best_fit_keeps_every_document_once_in_rows_that_are_full(lengths, room):
    rows = packing.pack_best_fit(lengths, room)
    assert sorted(index for row in rows for index in row) == [i for i, length in enumerate(lengths) if length <= room]
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert all(0 < total <= room for total in filled)
    assert sum(2 * total <= room for total in filled) <= 1  # two rows at most half full would have become one
    # Best fit: when a document was put down, no row with room for it was left emptier in favour of a new one.
    openers = sorted((lengths[row[0]] for row in rows), reverse=True)
    assert [lengths[row[0]] for row in rows] == openers  # longest first


def test_best_fit_takes_the_fullest_row_that_has_room():
    assert packing.pack_best_fit([6, 5, 4, 3], 10) == [[0, 2], [1, 3]]
    assert packing.pack_best_fit([7, 6, 3], 10) == [[0, 2], [1]]  # 3 leaves no gap beside 7, one of 1 beside 6
    assert packing.pack_best_fit([11, 2], 10) == [[1]]  # too long for any row
    assert packing.pack_best_fit([], 10) == []


@given(LENGTHS, st.integers(1, 40))
def test_one_per_row(lengths, room):
    assert packing.one_per_row(lengths, room) == [[i] for i, length in enumerate(lengths) if length <= room]


@pytest.fixture(scope="module")
def model(tokenizer):
    """Large random weights, so that a neighbour who is seen makes a difference."""
    model = shapes.build("phi-nano", len(tokenizer), 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4 if weight.dim() > 1 else 1)
        model.lm_head.weight.div_(4)
    return model


def documents(count, seed, vocabulary=400):
    """Random documents; the first third of each is prompt."""
    chance = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(4, 30, (1,), generator=chance))
        ids = torch.randint(5, vocabulary, (length,), generator=chance).tolist()
        made.append((ids, [packing.IGNORE] * (length // 3) + ids[length // 3 :]))
    return made


def logits(model, dataset):
    """Through the real collator, the way SFTTrainer calls the model."""
    batch = packing.collate(0)(list(dataset))
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits


def alone(model, document):
    with torch.no_grad():
        return model(torch.tensor([document[0]]), use_cache=False).logits[0]


@pytest.mark.parametrize("training", [True, False])
def test_documents_in_a_row_do_not_see_each_other(model, training):
    model.train(training)
    first, other, second, third = documents(4, 2)
    other = (other[0][: len(first[0])] + first[0][len(other[0]) :], first[1])  # as long as the first, other words
    assert len(other[0]) == len(first[0]) and other[0] != first[0]
    row, changed = (
        logits(model, packing.rows_dataset([one, second, third], [[0, 1, 2]], 0, 100))[0] for one in (first, other)
    )
    start, middle = len(first[0]), len(first[0]) + len(second[0])
    end = middle + len(third[0])
    assert (row[start:end] - changed[start:end]).abs().max() < 1e-5
    assert (row[:start] - changed[:start]).abs().max() > 1e-2
    for piece, document in ((row[:start], first), (row[start:middle], second), (row[middle:end], third)):
        assert (piece - alone(model, document)).abs().max() < 1e-4


@pytest.mark.parametrize("width", [None, 64])
def test_padding_changes_nothing(model, width):
    """Rows of a batch differ in length; each document's logits are those it has alone, whatever the padding is."""
    made = documents(5, 3)
    rows = packing.one_per_row([len(d[0]) for d in made], 64)
    batched = logits(model, packing.rows_dataset(made, rows, 0, width))
    other_pad = logits(model, packing.rows_dataset(made, rows, 7, width))
    for row, other, document in zip(batched, other_pad, made, strict=True):
        length = len(document[0])
        assert (row[:length] - alone(model, document)).abs().max() < 1e-4
        assert (row[:length] - other[:length]).abs().max() < 1e-5


def test_rows_hold_documents_and_ignored_padding():
    made = [([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, 5]), ([6], [6])]
    packed = packing.rows_dataset(made, [[1, 0], [2]], pad=9, row_length=7)
    assert packed["input_ids"][0] == [4, 5, 1, 2, 3, 9, 9]
    assert packed["labels"][0] == [-100, 5, -100, 2, 3, -100, -100]
    assert packed["position_ids"][0] == [0, 1, 0, 1, 2, 0, 1]
    assert packed["labels"][1] == [6] + [-100] * 6
    batch = packing.collate(9)(list(packing.rows_dataset(made, [[0], [2]], 9, None)))
    assert batch["input_ids"].tolist() == [[1, 2, 3], [6, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [6, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2], [0, 0, 1]]


def mean_loss(model, made):
    """Of every learnt token, document by document."""
    total = count = 0
    for ids, labels in made:
        learnt = torch.tensor(labels[1:])
        losses = torch.nn.functional.cross_entropy(alone(model, (ids, labels))[:-1], learnt, reduction="none")
        total, count = total + losses[learnt >= 0].sum().item(), count + int((learnt >= 0).sum())
    return total / count


@pytest.mark.parametrize("packed", [True, False])
def test_the_trainer_measures_the_loss_of_documents_alone(model, tokenizer, tmp_path, packed):
    """Both losses that SFTTrainer reports, from rows, are those of the same documents one at a time."""
    made, held = documents(40, 4), documents(9, 5)
    train_loss, held_loss = mean_loss(model, made), mean_loss(model, held)
    pack = packing.pack_best_fit if packed else packing.one_per_row
    rows = len(pack([len(d[0]) for d in made], 64))
    config = LanguageModelingConfig(learning_rate=0.0, batch_size=rows, row_length=64, steps=1, warmup_ratio=0.0)
    lm_trainer.fit(model, tokenizer, made, held, tmp_path, config, pack=pack, packed=packed, seed=0, title="test")
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["eval_loss"] for row in metrics if "eval_loss" in row] == [pytest.approx(held_loss, rel=1e-4)]
    reported = [row["loss"] for row in metrics if "loss" in row]
    assert reported == [pytest.approx(train_loss, rel=1e-3)]


def test_slices_of_like_length_hold_every_row_once_and_hardly_pad():
    made = documents(20, 7)
    batch = packing.collate(0)(list(packing.rows_dataset(made, [[i] for i in range(20)], 0, None)))
    parts = packing.microbatches_by_length(batch, 8)
    assert [len(part["labels"]) for part in parts] == [8, 8, 4]
    lengths = sorted(len(d[0]) for d in made)
    assert [part["labels"].shape[1] for part in parts] == [lengths[7], lengths[15], lengths[19]]
    shown = sorted(tuple(i for i in row.tolist() if i) for part in parts for row in part["input_ids"])
    assert shown == sorted(tuple(d[0]) for d in made)
    assert all((part["position_ids"][:, 0] == 0).all() for part in parts)


def test_slices_take_the_same_step_as_a_whole_batch(tokenizer, tmp_path):
    """Twenty documents through forward and backward at once, and in slices: equal loss and weights."""
    made, seen = documents(20, 8), []
    config = LanguageModelingConfig(learning_rate=1e-2, batch_size=20, row_length=64, steps=2, warmup_ratio=0.0)
    for size in (8, 20):
        sized = replace(config, hardware=HardwareConfig(micro_batch_size=size))
        model = shapes.build("phi-nano", len(tokenizer), 1)
        result = lm_trainer.fit(model, tokenizer, made, [], tmp_path / str(size), sized, pack=packing.one_per_row,
                                packed=False, seed=0, title="test")
        weights = torch.cat([weight.flatten() for weight in checkpoints.load(result.model).parameters()])
        seen.append((result.metrics[0]["loss"], weights))
    start = torch.cat([weight.flatten() for weight in shapes.build("phi-nano", len(tokenizer), 1).parameters()])
    assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-4)
    assert (seen[0][1] - seen[1][1]).norm() < 0.02 * (seen[0][1] - start).norm()


def test_a_learners_packing_is_what_runs(model, tokenizer, tmp_path):
    seen = []

    def pack(lengths, room):
        seen.append((list(lengths), room))
        return [[1], [0]]

    made = documents(3, 6)
    config = LanguageModelingConfig(learning_rate=1e-4, batch_size=2, row_length=50, steps=1, warmup_ratio=0.0)
    result = lm_trainer.fit(model, tokenizer, made, [], tmp_path, config, pack=pack, packed=True, seed=0, title="test")
    assert seen == [([len(d[0]) for d in made], 50)]
    assert result.train_tokens == 100  # two rows of fifty


def test_nothing_to_train_on(model, tokenizer, tmp_path):
    config = LanguageModelingConfig(learning_rate=0.0, batch_size=1, row_length=8, steps=1)
    with pytest.raises(UserError, match="no training documents"):
        lm_trainer.fit(model, tokenizer, [], [], tmp_path, config, pack=packing.one_per_row, packed=False, seed=0,
                       title="test")
