"""Packing's mask with and without the leak: the picture, and the loss of a document that sees its neighbour."""

import pytest
import torch

from phi_lab.lab import packing_leak
from phi_lab.model import checkpoints
from phi_lab.stages import minimal_lm

EVIL = "<img src=x onerror=alert(1)>"
FIRST = {"prompt": "Compute 7+8.", "completion": "<think>7+8=15.</think>\\boxed{15}"}
SECOND = {"prompt": "Compute 47+38.", "completion": "<think>47+38:7+8=15,4+3+1=8;85.</think>\\boxed{85}"}
OTHER = {"prompt": "Compute 47+38.", "completion": "<think>47+38:15,8;85.</think>\\boxed{85}"}


@pytest.fixture(scope="module")
def mid(shipped):
    return checkpoints.load(shipped("mid"))


def test_with_the_mask_a_document_has_the_loss_that_it_has_alone(mid, tokenizer):
    row = packing_leak.packed_row(tokenizer, [FIRST, SECOND, OTHER])
    alone = [packing_leak.losses(mid, packing_leak.packed_row(tokenizer, [one]))[0] for one in (FIRST, SECOND, OTHER)]
    assert packing_leak.losses(mid, row) == pytest.approx(alone, abs=1e-4)


def test_with_a_leak_only_the_later_documents_change(mid, tokenizer):
    row = packing_leak.packed_row(tokenizer, [FIRST, SECOND])
    apart, leaking = packing_leak.losses(mid, row), packing_leak.losses(mid, row, leaking=True)
    assert leaking[0] == pytest.approx(apart[0], abs=1e-4) and abs(leaking[1] - apart[1]) > 0.1


def test_a_row_s_loss_is_the_mean_of_its_documents(mid, tokenizer):
    """By answer tokens, which is the loss that mid-training takes."""
    row = packing_leak.packed_row(tokenizer, [FIRST, SECOND])
    with torch.no_grad():
        logits = minimal_lm.masked_logits(mid, row.ids, row.positions, minimal_lm.document_mask(row.positions))
    whole = minimal_lm.next_token_loss(logits, row.ids, row.labels != packing_leak.IGNORE).item()
    numbers = minimal_lm.documents_of(row.positions)
    sizes = [int(((row.labels != packing_leak.IGNORE) & (numbers == one)).sum()) for one in (1, 2)]
    each = packing_leak.losses(mid, row)
    assert whole == pytest.approx(sum(n * one for n, one in zip(sizes, each, strict=True)) / sum(sizes), abs=1e-5)


def test_the_picture_is_orange_where_a_token_sees_another_document(tokenizer):
    row = packing_leak.packed_row(tokenizer, [FIRST, SECOND])
    (one, two), figure = row.lengths(), packing_leak.figure(row)
    apart, leaking = (axes.images[0].get_array() for axes in figure.axes)
    assert (apart == 2).sum() == 0 and (leaking == 2).sum() == one * two
    assert (apart == 1).sum() == (leaking == 1).sum() == (one * (one + 1) + two * (two + 1)) // 2
    assert leaking[one + two - 1, 0] == 2 and leaking[0, one + two - 1] == 0, "a later token sees an earlier one"
    assert f"{one * two:,} between documents besides" in figure.alt and "0 between documents." in figure.alt


def test_the_picture_shows_the_learner_s_own_mask(tokenizer):
    row = packing_leak.packed_row(tokenizer, [FIRST, SECOND])
    figure = packing_leak.figure(row, may_see=packing_leak.causal)
    assert (figure.axes[0].images[0].get_array() == 2).any()


def test_neighbours_and_a_question_that_was_answered_twice():
    documents = [FIRST, SECOND, OTHER]
    assert packing_leak.answered_twice(documents) is SECOND
    assert packing_leak.answered_twice([FIRST]) is FIRST
    near = packing_leak.neighbours_of(SECOND, documents)
    assert [one for _, one in near] == [FIRST, OTHER, SECOND]
    assert [name for name, _ in packing_leak.neighbours_of(FIRST, [FIRST])] == ["the same document"]


def test_the_table_has_the_document_alone_in_its_first_line(mid, tokenizer):
    evil = {**SECOND, "prompt": EVIL}
    page = packing_leak.leak_table(mid, tokenizer, [("another question", FIRST)], evil)
    alone, behind = (line.split("<td") for line in page.split("<tr>")[2:])
    assert alone[2].partition(">")[2] == behind[2].partition(">")[2], "with the mask as alone"
    assert "–" in alone[3] and EVIL not in page


def test_the_widget_follows_both_choices(mid, tokenizer):
    box = packing_leak.widget(mid, tokenizer, [FIRST, SECOND, OTHER], SECOND)
    after, before, view = box.children
    assert view.value == packing_leak.shown(mid, tokenizer, ("another question", FIRST), SECOND)
    seen = [view.value]
    before.value = 1
    seen.append(view.value)
    after.value = 2
    seen.append(view.value)
    assert len(set(seen)) == 3 and "The answer to: Compute 47+38." in seen[-1]
