"""Packing's mask as a picture, and what a document loses or gains where it can see the one before it.

    row = packing_leak.packed_row(tokenizer, [first, second])
    packing_leak.figure(row)                          # block-diagonal beside plainly causal
    packing_leak.losses(model, row, leaking=True)     # the loss of each document, nats a token
    packing_leak.widget(model, tokenizer, documents)  # with a running kernel: choose who stands before whom

A model that was trained with the mask has never had a neighbour, so a leak disturbs it. A model that is trained without
the mask may learn to use its neighbours, and they are not there when it is used.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import ipywidgets
import torch
from matplotlib import colors, rc_context
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.lab import tables
from phi_lab.lab.widgets import live_html
from phi_lab.report import plot_style
from phi_lab.stages import minimal_lm
from phi_lab.stages.packing import IGNORE, collate, document, rows_dataset

MaySee = Callable[[torch.Tensor], torch.Tensor]  # positions, (rows, tokens) -> True where i may look at j


class Row(NamedTuple):
    """A packed row: ids, positions and labels of its tokens, each (1, tokens), and the questions of its documents."""

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    questions: list[str]

    def lengths(self) -> list[int]:
        """The tokens of each document."""
        return minimal_lm.documents_of(self.positions)[0].unique_consecutive(return_counts=True)[1].tolist()


def packed_row(tokenizer: PreTrainedTokenizerFast, documents: Sequence[dict]) -> Row:
    """Documents (rows with prompt and completion) in one row, without padding."""
    pairs = [document(tokenizer, one["prompt"], one["completion"]) for one in documents]
    rows = rows_dataset(pairs, [list(range(len(pairs)))], tokenizer.pad_token_id, None)
    batch = collate(tokenizer.pad_token_id)([rows[0]])
    return Row(batch["input_ids"], batch["position_ids"], batch["labels"], [one["prompt"] for one in documents])


def causal(positions: torch.Tensor) -> torch.Tensor:
    """The mask that forgets where documents end: each token sees all tokens up to itself, (rows, tokens, tokens)."""
    rows, tokens = positions.shape
    return torch.ones(rows, tokens, tokens, dtype=torch.bool, device=positions.device).tril()


def losses(
    model: PreTrainedModel, row: Row, leaking: bool = False, may_see: MaySee = minimal_lm.document_mask
) -> list[float]:
    """The mean loss of each document's answer, nats a token, under the mask `may_see`, or (`leaking`) `causal`."""
    numbers = minimal_lm.documents_of(row.positions)
    mask = (causal if leaking else may_see)(row.positions).bool()
    with torch.no_grad():
        logits = minimal_lm.masked_logits(model.eval(), row.ids, row.positions, mask)
    return [minimal_lm.next_token_loss(logits, row.ids, (row.labels != IGNORE) & (numbers == one)).item()
            for one in numbers.unique().tolist()]


@rc_context(plot_style.RC_PARAMS)
def figure(row: Row, may_see: MaySee = minimal_lm.document_mask) -> plot_style.Figure:
    """Who sees whom in a row: packing's mask on the left, a causal one on the right. A line is a token, blue what it
    sees of its own document, orange what it sees of another.
    """
    drawn, grid = plot_style.panels(1, 2, (9.5, 4.6), sharey=True)
    numbers, lengths = minimal_lm.documents_of(row.positions)[0], row.lengths()
    other = numbers[:, None] != numbers[None, :]
    ends = torch.tensor(lengths).cumsum(0)
    middles = (ends - torch.tensor(lengths) / 2 - 0.5).tolist()
    palette, counts = colors.ListedColormap([plot_style.PAGE, plot_style.BLUE, plot_style.ORANGE]), []
    for axes, mask, title in ((grid[0, 0], may_see(row.positions)[0].bool(), "Packing: causal and block-diagonal"),
                              (grid[0, 1], causal(row.positions)[0], "Only causal: documents see each other")):
        axes.imshow((mask * (1 + other.int())).numpy(), cmap=palette, vmin=0, vmax=2, interpolation="nearest")
        for end in (ends[:-1] - 0.5).tolist():
            axes.axhline(end, color=plot_style.SOFT, linewidth=0.8)
            axes.axvline(end, color=plot_style.SOFT, linewidth=0.8)
        axes.set_xticks(middles, [str(number) for number in range(1, len(lengths) + 1)])
        axes.set_yticks(middles, [_cut(question) for question in row.questions])
        axes.set_title(title)
        axes.grid(False)
        axes.tick_params(length=0)
        counts.append((int((mask & ~other).sum()), int((mask & other).sum())))
    grid[0, 0].set_ylabel("the token that is written")
    drawn.supxlabel("the token that it sees, by document: blue of its own, orange of another", color=plot_style.SOFT,
                    fontsize=10)
    (own, leaks), (_, leaks_causal) = counts
    drawn.alt = (f"Attention masks of a row of {len(lengths)} documents of {', '.join(map(str, lengths))} tokens. "
                 f"Packing's mask: {own:,} pairs of tokens within a document, {leaks:,} between documents. "
                 f"The causal mask: {leaks_causal:,} between documents besides.")
    return drawn


def _cut(question: str) -> str:
    return question if len(question) <= 24 else f"{question[:23]}…"


def leak_table(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, neighbours: Sequence[tuple[str, dict]], second: dict,
    may_see: MaySee = minimal_lm.document_mask,
) -> str:
    """The loss of the document `second` behind each of `neighbours` (what it is, the document): with packing's mask,
    with a leak, and the difference; in the first line alone in its row, as a model is used.
    """
    (alone,) = losses(model, packed_row(tokenizer, [second]), may_see=may_see)
    lines = [("nothing", f"{alone:.4f}", "–", "–")]
    for name, first in neighbours:
        row = packed_row(tokenizer, [first, second])
        apart, leaking = (losses(model, row, leak, may_see)[1] for leak in (False, True))
        lines.append((name, f"{apart:.4f}", f"{leaking:.4f}", f"{leaking - apart:+.4f}"))
    head = ("before it in the row", "loss with packing's mask", "with the leak", "difference, nats a token")
    return tables.table(f"The answer to: {second['prompt']}", head, lines)


def neighbours_of(second: dict, documents: Sequence[dict]) -> list[tuple[str, dict]]:
    """Documents to put before `second`: one on another question, another answer to the same one, and itself; those of
    them that `documents` has.
    """
    other = next((one for one in documents if one["prompt"] != second["prompt"]), None)
    answer = next((one for one in documents if one["prompt"] == second["prompt"]
                   and one["completion"] != second["completion"]), None)
    found = (("another question", other), ("the same question, other answer", answer), ("the same document", second))
    return [(name, one) for name, one in found if one is not None]


def answered_twice(documents: Sequence[dict], most_characters: int = 160) -> dict:
    """The first document of at most so many characters whose question has another answer among the documents; the
    first document where there is none.
    """
    answers: dict[str, set[str]] = {}
    for one in documents:
        answers.setdefault(one["prompt"], set()).add(one["completion"])
    return next((one for one in documents if len(answers[one["prompt"]]) > 1
                 and len(one["prompt"] + one["completion"]) <= most_characters), documents[0])


def shown(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, first: tuple[str, dict], second: dict,
    may_see: MaySee = minimal_lm.document_mask,
) -> str:
    """The masks of a row of two documents, and the loss of the second with them, as HTML."""
    picture = figure(packed_row(tokenizer, [first[1], second]), may_see)._repr_html_()
    return picture + leak_table(model, tokenizer, [first], second, may_see)


def widget(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, documents: Sequence[dict], second: dict,
    may_see: MaySee = minimal_lm.document_mask,
) -> ipywidgets.Widget:
    """Choose two documents of a row: any of `documents`, or those of `neighbours_of`, before any of `documents`."""
    near = neighbours_of(second, documents)
    firsts = near + [(_cut(one["prompt"]), one) for one in documents if all(one is not other for _, other in near)]
    layout = ipywidgets.Layout(width="32em")
    before = ipywidgets.Dropdown(options=[(name, number) for number, (name, _) in enumerate(firsts)],
                                 description="before it", layout=layout)
    after = ipywidgets.Dropdown(options=[(one["prompt"], number) for number, one in enumerate(documents)],
                                value=next(n for n, one in enumerate(documents) if one is second),
                                description="document", layout=layout)

    def render() -> str:
        return shown(model, tokenizer, firsts[before.value], documents[after.value], may_see)

    return live_html(render, after, before)
