"""Interactive widgets of a few controls: each is a pure function of its settings, with ipywidgets as its controls.

The same function makes the static table or figure beside the widget, so that a page without a kernel can be read too.
Those that need a model or a run have files of their own: `group_live`, `packing_leak`, `break_it`, `ladder_explorer`,
`two_stages` and `difference_worth`.

    from phi_lab.lab import widgets; widgets.verifier()
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import ipywidgets
import torch

from phi_lab import verify
from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import percent
from phi_lab.distill.funnel import Funnel, Rules
from phi_lab.lab import tables
from phi_lab.model import chat
from phi_lab.pipeline import plan
from phi_lab.problems import arithmetic
from phi_lab.report import figures
from phi_lab.report.html import text
from phi_lab.report.plot_style import VERDICTS, Figure

if TYPE_CHECKING:
    from phi_lab.stages.grpo_trainer import Advantage

SLOW = {"continuous_update": False}  # redraw when a control is released
CASES = (  # (completion, gold answer) pairs that the verifier has to decide
    ("<think>47+38:7+8=15,4+3+1=8;85.</think>\\boxed{85}", "85"),
    ("<think>…19/12.</think>\\boxed{38/24}", "19/12"),
    ("\\boxed{0.5}", "\\frac{1}{2}"),
    ("<think>…85.</think>\\boxed{58}", "85"),
    ("<think>47+38:7+8=15,4+3+1=8;85.85.85.85", "85"),
    ("<think>…85.</think>The answer is 85", "85"),
    ("<think>\\boxed{85}</think>", "85"),
)


def verdict_html(completion: str, gold: str) -> str:
    """The verifier's verdict on one completion, the answer that it extracted, and the rule that decided."""
    result = verify.verify(completion, gold)
    reading = "no answer found" if result.extracted is None else f"it read the answer {result.extracted}"
    rule = f"<small>{text(result.rule)}</small>"
    return f"<p>{tables.badge(result.verdict)}: {text(reading)}; the right one is {text(gold)}<br>{rule}</p>"


def verdict_table(cases: Sequence[tuple[str, str]] = CASES) -> str:
    """The verifier's verdicts on several completions."""
    rows = [
        (f"<code>{text(completion)}</code>", text(gold), tables.badge(result.verdict), text(result.extracted or "–"),
         text(result.rule))
        for completion, gold in cases
        for result in [verify.verify(completion, gold)]
    ]
    return tables.table("", ("the model wrote", "right answer", "verdict", "what was read", "rule"), rows, raw=True)


def verifier() -> ipywidgets.Widget:
    """Type a completion and a gold answer, and see the verdict."""
    layout = ipywidgets.Layout(width="46em")
    completion = ipywidgets.Text(CASES[1][0], description="answer", layout=layout, **SLOW)
    gold = ipywidgets.Text(CASES[1][1], description="gold", **SLOW)
    return live_html(lambda: verdict_html(completion.value, gold.value), completion, gold)


def nth_rollout(rows: Sequence[dict], verdict: str, index: int) -> str:
    """The rollout at `index` (modulo their number) among those with a verdict."""
    matching = [row for row in rows if row["verdict"] == verdict]
    if not matching:
        return f"<p>No rollout is {text(verdict)}.</p>"
    index %= len(matching)
    return f"<p><small>{index + 1} of {len(matching):,}</small></p>" + tables.rollout(matching[index])


def gallery(rows: Sequence[dict], seed: int = 0) -> str:
    """One random rollout of each verdict that occurs."""
    rng = random.Random(seed)
    by_verdict = [[row for row in rows if row["verdict"] == verdict] for verdict in VERDICTS]
    return "<hr>".join(tables.rollout(rng.choice(matching)) for matching in by_verdict if matching)


def browse(rows: Sequence[dict]) -> ipywidgets.Widget:
    """Choose a verdict and page through all of its rollouts; after the last one comes the first."""
    verdict = ipywidgets.Dropdown(options=[name for name in VERDICTS if any(row["verdict"] == name for row in rows)])
    index = ipywidgets.BoundedIntText(0, min=0, max=max(0, len(rows) - 1), description="number")
    return live_html(lambda: nth_rollout(rows, verdict.value, index.value), verdict, index)


def filtered(rows: Sequence[dict], rules: Rules) -> tuple[dict, list[dict]]:
    """(the funnel, the right rollouts that are kept) when the same rollouts are filtered by other rules."""
    funnel = Funnel(rules)
    kept = [row for right, _ in funnel.filter(rows) for row in right]
    return funnel.report(), kept


def limits_table(rows: Sequence[dict], limits: Sequence[int] = (300, 200, 150, 100)) -> str:
    """How many right rollouts and questions a limit on an answer's length leaves, and how many of those are hard."""
    lines = []
    for limit in limits:
        _, kept = filtered(rows, Rules(max_tokens=limit))
        levels = Counter({row["id"]: row["level"] for row in kept}.values())
        hard = sum(levels[level] for level in arithmetic.HARD_LEVELS) / max(1, levels.total())
        lines.append((limit, f"{len(kept):,}", f"{levels.total():,}", percent(hard)))
    head = ("tokens at most", "right rollouts left", "questions left", "of them with 3 or more operations")
    return tables.table("", head, lines)


def filters(rows: Sequence[dict]) -> ipywidgets.Widget:
    """Move the limits of length, similarity and pass rate, and watch the funnel."""
    max_tokens = ipywidgets.IntSlider(300, 20, 300, 10, description="tokens at most", **SLOW)
    threshold = ipywidgets.FloatSlider(1.0, min=0.3, max=1.0, step=0.05, description="alike at most", **SLOW)
    pass_rate = ipywidgets.FloatRangeSlider(value=(0.0, 1.0), min=0.0, max=1.0, step=0.125, description="pass rate",
                                            **SLOW)
    picture = ipywidgets.Image(format="png", width=760)

    def show(*_) -> None:
        rules = Rules(max_tokens=max_tokens.value, near_duplicate_threshold=threshold.value,
                      pass_rate_range=pass_rate.value)
        picture.value = figures.funnel(filtered(rows, rules)[0])._repr_png_()[0]

    return _redrawn(show, picture, max_tokens, threshold, pass_rate)


def schedule_figure(start: float, end: float, fraction: float, steps: int = 30) -> Figure:
    """The sampling temperature when it falls linearly from `start` to `end` over a fraction (0 to 1) of the steps."""

    def temperature(step: int, steps: int) -> float:
        return start + (end - start) * min(1.0, step / max(1.0, fraction * steps))

    return figures.temperature_schedule(temperature, steps)


def schedule() -> ipywidgets.Widget:
    """Change the schedule's start, end and duration; at first they are the paper's."""
    start, end = (ipywidgets.FloatSlider(value, min=0.1, max=1.5, step=0.05, description=name, **SLOW)
                  for name, value in (("start", 1.0), ("end", 0.6)))
    fraction = ipywidgets.FloatSlider(0.5, min=0.0, max=1.0, step=0.05, description="falls over", **SLOW)
    picture = ipywidgets.Image(format="png", width=560)

    def show(*_) -> None:
        picture.value = schedule_figure(start.value, end.value, fraction.value)._repr_png_()[0]

    return _redrawn(show, picture, start, end, fraction)


def temperature_table(model, tokenizer, prompt: str, completion: str, temperatures=(0.3, 0.6, 1.0, 1.5)) -> str:
    """The probabilities of the five likeliest next tokens at several temperatures.

    The place within the completion is the one where the model is least certain which digit comes.
    """
    prompt_ids, answer_ids = chat.prompt_ids(tokenizer, prompt), chat.completion_ids(tokenizer, completion)
    with torch.inference_mode():
        batch = torch.tensor([prompt_ids + answer_ids], device=model.device)
        logits = model.eval()(batch).logits[0, len(prompt_ids) - 1 : -1]  # those that predict the completion's tokens
    place = doubtful_place(logits, [token for digit in "0123456789" for token in chat.text_ids(tokenizer, digit)])
    likeliest, rows = logits[place].topk(5).indices, []
    for temperature in temperatures:
        scaled = torch.distributions.Categorical(logits=logits[place] / temperature)
        shares = map(percent, scaled.probs[likeliest].tolist())
        rows.append((f"T = {temperature}", *shares, f"{float(scaled.entropy()):.2f}"))
    head = ["", *(repr(tokenizer.decode([token])) for token in likeliest.tolist()), "entropy, nats"]
    written = tokenizer.decode(answer_ids[:place])
    shown = written if len(written) <= 60 else f"…{written[-60:]}"
    return tables.table(f"{prompt} The next token after {shown}", head, rows)


def doubtful_place(logits: torch.Tensor, digits: Sequence[int]) -> int:
    """The index of the row of `logits` with the largest entropy, of those whose two likeliest tokens are `digits`; of
    all rows where there is no such row.
    """
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    both = torch.isin(logits.topk(2).indices, torch.tensor(digits, device=logits.device)).all(1)
    return int((entropy.where(both, -1.0) if both.any() else entropy).argmax())


def rebalancing_table(groups: Sequence[str], advantage: Advantage | None = None, seed: int = 0) -> str:
    """The advantages of plain GRPO and of another function (by default GRPO's `rebalance` here) for groups such as
    "++------" (+ right, - wrong).
    """
    from phi_lab.stages import grpo  # with TRL it takes seconds to load

    rows = []
    for group in groups:
        rewards = torch.tensor([[1.0 if sign == "+" else -1.0 for sign in group]])
        plain, balanced = (function(rewards, torch.Generator().manual_seed(seed))[0].tolist()
                       for function in (grpo.group_normalised, advantage or grpo.rebalance))
        signs = (" ".join("0" if value == 0 else f"{value:+.2g}" for value in row) for row in (plain, balanced))
        rows.append((f"{group.count('+')} of {len(group)} right", *signs))
    return tables.table("0: this answer gives no gradient.", ("group", "plain GRPO", "rebalanced"), rows)


def rebalancing(size: int = 8) -> ipywidgets.Widget:
    """Tick which answers of a group are right; another seed draws other wrong ones."""
    layout = ipywidgets.Layout(width="2em")
    boxes = [ipywidgets.Checkbox(index < 2, indent=False, layout=layout) for index in range(size)]
    seed = ipywidgets.IntSlider(0, 0, 9, description="seed")
    row = ipywidgets.HBox([ipywidgets.Label("right:"), *boxes])
    view = ipywidgets.HTML()

    def show(*_) -> None:
        view.value = rebalancing_table(["".join("+" if box.value else "-" for box in boxes)], seed=seed.value)

    for box in boxes:
        box.observe(show, "value")
    return _redrawn(show, view, row, seed)


def plan_text(scale_name: str, card: str, gpus: int) -> str:
    """The text of `phi-lab plan`, or one line that says why there is no plan."""
    config = presets.run_config(scale_name)
    try:
        return plan.table(config, plan.plan(config, card, gpus), card, gpus)
    except UserError as error:
        return str(error)


def planner() -> ipywidgets.Widget:
    """Choose a scale, a GPU and how many of them."""
    scale = ipywidgets.Dropdown(options=schema.SCALES[1:], value="qlora", description="scale")
    card = ipywidgets.Dropdown(options=list(plan.CARDS), value="rtx4090", description="GPU")
    gpus = ipywidgets.SelectionSlider(options=[2**i for i in range(11)], value=1, description="how many", **SLOW)
    return live_html(lambda: f"<pre>{text(plan_text(scale.value, card.value, gpus.value))}</pre>", scale, card, gpus)


def live_html(render: Callable[[], str], *controls: ipywidgets.Widget) -> ipywidgets.Widget:
    """Controls over the HTML that `render` returns."""
    view = ipywidgets.HTML()

    def show(*_) -> None:
        view.value = render()

    return _redrawn(show, view, *controls)


def _redrawn(show: Callable, view: ipywidgets.Widget, *controls: ipywidgets.Widget) -> ipywidgets.Widget:
    """Controls over a view that `show` redraws whenever one of them changes."""
    for control in controls:
        if control.has_trait("value"):
            control.observe(show, "value")
            control.style.description_width = "initial"  # else a long label is cut
    show()
    return ipywidgets.VBox([*controls, view])
