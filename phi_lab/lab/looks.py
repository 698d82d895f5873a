"""Looking inside: what a model attends to, how probable each token of an answer is, what a temperature gives.

Each is a pure function of a model or of rows; the widgets are a control over them, with the same function's first state
beside them for a page without a kernel (`pictures.attention`, `token_heat`, `temperatures`).

    tokens, heads = looks.attention(model, tokenizer, "Compute 47+38.", "<think>47+38:7+8=15,4+3+1=8;85.</think>")
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import ipywidgets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.core.formatting import percent
from phi_lab.core.records import PreferencePair
from phi_lab.lab import tables
from phi_lab.lab.widgets import SLOW, live_html
from phi_lab.model import chat
from phi_lab.report.html import text
from phi_lab.stages.packing import IGNORE, pair_document

Sides = dict[str, list[tuple[str, float, float]]]  # chosen, rejected -> (token, log pi, log pi_ref) of each token


# ------------------------------------------------------------------ attention


def attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str, layer: int = -1
) -> tuple[list[str], list[list[list[float]]]]:
    """(tokens, heads) of a prompt with its completion: for each head of a layer the shares, 0 to 1, with which each
    token looks at each other one, (tokens, tokens).
    """
    ids = [*chat.prompt_ids(tokenizer, prompt), *chat.completion_ids(tokenizer, completion)]
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fast kernels do not keep the shares
    try:
        with torch.inference_mode():
            batch = torch.tensor([ids], device=model.device)
            heads = model.eval()(batch, output_attentions=True, use_cache=False).attentions[layer][0]
    finally:
        model.set_attn_implementation(before)
    return [tokenizer.decode([token]) for token in ids], heads.float().tolist()


def copying_head(tokens: Sequence[str], heads: Sequence[Sequence[Sequence[float]]], places: Sequence[int]) -> int:
    """The index of the head with the largest `copied`."""
    return max(range(len(heads)), key=lambda head: copied(tokens, heads[head], places))


def copied(tokens: Sequence[str], weights: Sequence[Sequence[float]], places: Sequence[int]) -> float:
    """The share, 0 to 1, of a head's attention on earlier tokens equal to the one that is written; the mean over
    `places`.
    """
    return mean(
        sum(weights[place - 1][other] for other in range(place) if tokens[other] == tokens[place]) for place in places
    )


def attention_html(tokens: Sequence[str], weights: Sequence[Sequence[float]], place: int) -> str:
    """The text with the token at `place` framed, and each token before it shaded by how much the model looks at it when
    it writes that one; a share of at least 0.2 is written behind its token.
    """
    cells = []
    for other, token in enumerate(tokens):
        share = weights[place - 1][other] if other < place else 0.0
        style = f"background:rgba(0,114,178,{share:.2f});padding:.1em .15em"
        if other == place:
            style += ";outline:2px solid #d55e00"
        number = f"<sub>{share:.2f}</sub>" if share >= 0.2 else ""
        cells.append(f'<span style="{style}">{text(token)}{number}</span>')
    return f'<p style="font-family:monospace;line-height:2.2">{" ".join(cells)}</p>'


def attention_slider(
    tokens: Sequence[str], heads: Sequence[Sequence[Sequence[float]]], place: int, head: int
) -> ipywidgets.Widget:
    """Move along the answer, and see where a head looks when the model writes each token."""
    where = ipywidgets.IntSlider(place, 1, len(tokens) - 1, description="token", **SLOW)
    which = ipywidgets.IntSlider(head, 0, len(heads) - 1, description="head", **SLOW)
    return live_html(lambda: attention_html(tokens, heads[which.value], where.value), where, which)


# ------------------------------------------------------------------ a preference pair


def pair_tokens(
    model: PreTrainedModel, reference: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pair: PreferencePair
) -> Sides:
    """Each token of both answers of a pair with its log-probability (nats) under a model and its reference."""
    sides: Sides = {}
    for side in ("chosen", "rejected"):
        ids, labels = pair_document(tokenizer, pair, side)
        batch, first = torch.tensor([ids]), labels.count(IGNORE)
        columns = []
        for one in (model, reference):
            with torch.inference_mode():
                logits = one.eval()(batch.to(one.device), use_cache=False).logits[0, :-1].float().cpu()
            columns.append(logits.log_softmax(-1).gather(1, batch[0, 1:, None])[:, 0].tolist())
        sides[side] = [(tokenizer.decode([ids[place]]), columns[0][place - 1], columns[1][place - 1])
                       for place in range(first, len(ids))]
    return sides


def pair_numbers(sides: Sides, beta: float) -> dict[str, float]:
    """"margin" (nats): how much more the chosen answer's log-probability rose than the rejected one's; "loss": DPO's;
    "push": the size of its gradient for the margin, beta x sigmoid(-beta x margin).
    """
    rise = {side: sum(now - before for _, now, before in tokens) for side, tokens in sides.items()}
    margin = rise["chosen"] - rise["rejected"]
    return {"margin": margin, "loss": math.log1p(math.exp(-beta * margin)),
            "push": beta / (1 + math.exp(beta * margin))}


def beta_table(sides: Sides, betas: Sequence[float] = (0.01, 0.1, 0.5, 2.0)) -> str:
    """The loss of one pair, and how hard it pushes, for several values of beta."""
    numbers = [pair_numbers(sides, beta) for beta in betas]
    rows = [(f"{beta:g}", f"{one['margin']:+.2f}", f"{one['loss']:.3f}", f"{one['push']:.3f}")
            for beta, one in zip(betas, numbers, strict=True)]
    return tables.table("", ("β", "margin, nats", "loss", "gradient for the margin"), rows)


def beta_slider(sides: Sides) -> ipywidgets.Widget:
    """Move β, and see the loss of the pair and the size of its gradient."""
    exponent = ipywidgets.FloatLogSlider(0.1, min=-2, max=1, step=0.1, description="β", **SLOW)
    return live_html(lambda: beta_table(sides, (exponent.value,)), exponent)


# ------------------------------------------------------------------ temperature


def outcome(groups: Sequence[Sequence[dict]]) -> dict[str, float]:
    """"right": the share of right answers; "mixed": the share of groups with right and other answers; "tokens": the
    mean length of an answer. groups: rows with verdict and tokens.
    """
    rows = [row for group in groups for row in group]
    hits = [[row["verdict"] == "right" for row in group] for group in groups]
    return {"right": mean(row["verdict"] == "right" for row in rows), "tokens": mean(row["tokens"] for row in rows),
            "mixed": mean(any(group) and not all(group) for group in hits)}


def groups_html(groups: Sequence[Sequence[dict]]) -> str:
    """The groups of one temperature: ✓ and ✗ of each question, and one of its wrong answers."""
    one = outcome(groups)
    caption = f"{percent(one['right'])} right, {percent(one['mixed'])} of groups with both, {one['tokens']:.0f} tokens"
    rows = []
    for group in groups:
        wrong = next((row["completion"] for row in group if row["verdict"] != "right"), "")
        signs = " ".join("✓" if row["verdict"] == "right" else "✗" for row in group)
        rows.append((group[0]["prompt"], signs, wrong[:120]))
    return tables.table(caption, ("question", "answers", "one that is not right"), rows)


def temperature_slider(sampled: Mapping[float, Sequence[Sequence[dict]]]) -> ipywidgets.Widget:
    """Choose a temperature, and see the answers that were sampled at it."""
    options = [(f"{heat:g}", heat) for heat in sampled]
    choice = ipywidgets.SelectionSlider(options=options, description="temperature", style=dict(description_width="7em"))
    return live_html(lambda: groups_html(sampled[choice.value]), choice)
