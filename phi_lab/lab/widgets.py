"""Six things to play with: each a pure function (what it shows for which settings) with ipywidgets in front of it.

The pure function also makes the static table or figure beside the widget, so that a page without a kernel still reads.

    from phi_lab.lab import widgets; widgets.verifier()
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import ipywidgets
import torch

from phi_lab import verify
from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.distill.funnel import Funnel, Rules
from phi_lab.lab import tables
from phi_lab.model import chat
from phi_lab.pipeline import plan
from phi_lab.report import figures
from phi_lab.report.html import text
from phi_lab.report.plot_style import VERDICTS, Figure
from phi_lab.stages import grpo

SLOW = {"continuous_update": False}
CASES = (  # completion, gold: what the verifier has to get right
    ("<think>47+38:7+8=15,4+3+1=8;85.</think>\\boxed{85}", "85"),
    ("<think>…19/12.</think>\\boxed{38/24}", "19/12"),
    ("\\boxed{0.5}", "\\frac{1}{2}"),
    ("<think>…85.</think>\\boxed{58}", "85"),
    ("<think>47+38:7+8=15,4+3+1=8;85.85.85.85", "85"),
    ("<think>…85.</think>The answer is 85", "85"),
    ("<think>\\boxed{85}</think>", "85"),
)


# ------------------------------------------------------------------ verifier playground


def verdict_html(completion: str, gold: str) -> str:
    """What the verifier says about one completion."""
    found = verify.verify(completion, gold)
    said = "no answer found" if found.extracted is None else f"it read the answer {found.extracted}"
    why = f"<small>{text(found.rule)}</small>"
    return f"<p>{tables.badge(found.verdict)}: {text(said)}; the right one is {text(gold)}<br>{why}</p>"


def verdict_table(cases: Sequence[tuple[str, str]] = CASES) -> str:
    """The verifier's verdicts on several completions."""
    rows = [
        (f"<code>{text(completion)}</code>", text(gold), tables.badge(found.verdict), text(found.extracted or "–"),
         text(found.rule))
        for completion, gold in cases
        for found in [verify.verify(completion, gold)]
    ]
    return tables.table("", ("the model wrote", "right answer", "verdict", "what was read", "rule"), rows, raw=True)


def verifier() -> ipywidgets.Widget:
    """Type an answer and see the verdict."""
    wide = ipywidgets.Layout(width="46em")
    said = ipywidgets.Text(CASES[1][0], description="answer", layout=wide, **SLOW)
    gold = ipywidgets.Text(CASES[1][1], description="gold", **SLOW)
    return _live(lambda: verdict_html(said.value, gold.value), said, gold)


# ------------------------------------------------------------------ rollouts by verdict


def pick(rows: Sequence[dict], verdict: str, place: int) -> str:
    """The rollout number `place` (it wraps around) among those with a verdict."""
    found = [row for row in rows if row["verdict"] == verdict]
    if not found:
        return f"<p>No rollout is {text(verdict)}.</p>"
    return f"<p><small>{place % len(found) + 1} of {len(found):,}</small></p>" + tables.rollout(
        found[place % len(found)]
    )


def gallery(rows: Sequence[dict], seed: int = 0) -> str:
    """One rollout of every verdict that occurs."""
    chance, found = random.Random(seed), {row["verdict"] for row in rows}
    one = [
        chance.choice([row for row in rows if row["verdict"] == verdict]) for verdict in VERDICTS if verdict in found
    ]
    return "<hr>".join(map(tables.rollout, one))


def browse(rows: Sequence[dict]) -> ipywidgets.Widget:
    """Leaf through rollouts by verdict."""
    verdict = ipywidgets.Dropdown(options=[name for name in VERDICTS if any(row["verdict"] == name for row in rows)])
    place = ipywidgets.IntSlider(0, 0, 99, description="number")
    return _live(lambda: pick(rows, verdict.value, place.value), verdict, place)


# ------------------------------------------------------------------ filters to move


def filtered(rows: Sequence[dict], rules: Rules) -> tuple[dict, list[dict]]:
    """What stricter rules make of the same rollouts: the funnel, and the right ones that are left."""
    funnel = Funnel(rules)
    kept = [row for right, _ in funnel.sift(rows) for row in right]
    return funnel.report(), kept


def limits_table(rows: Sequence[dict], limits: Sequence[int] = (250, 150, 100, 70)) -> str:
    """What a limit on an answer's length leaves, and how hard the questions are that are left with an answer."""
    lines = []
    for limit in limits:
        _, kept = filtered(rows, Rules(max_tokens=limit))
        levels = Counter({row["id"]: row["level"] for row in kept}.values())
        hard = sum(levels[level] for level in (3, 4)) / max(1, levels.total())
        lines.append((limit, f"{len(kept):,}", f"{levels.total():,}", tables.percent(hard)))
    return tables.table(
        "", ("tokens at most", "right rollouts left", "questions left", "of them with 3 or 4 operations"), lines
    )


def filters(rows: Sequence[dict]) -> ipywidgets.Widget:
    """Move the limits of length, likeness and pass rate, and watch the funnel."""
    longest = ipywidgets.IntSlider(250, 20, 250, 10, description="tokens at most", **SLOW)
    near = ipywidgets.FloatSlider(1.0, min=0.3, max=1.0, step=0.05, description="alike at most", **SLOW)
    rates = ipywidgets.FloatRangeSlider(value=(0.0, 1.0), min=0.0, max=1.0, step=0.125, description="pass rate", **SLOW)
    picture = ipywidgets.Image(format="png", width=760)

    def show(*_) -> None:
        report, _ = filtered(rows, Rules(max_tokens=longest.value, near_duplicate_threshold=near.value, pass_rate_range=rates.value))
        picture.value = figures.funnel(report)._repr_png_()[0]

    return _watched(show, picture, longest, near, rates)


# ------------------------------------------------------------------ temperature schedule


def schedule_figure(temperature_start: float, temperature_end: float, share: float, steps: int = 30) -> Figure:
    """The sampling temperature when it falls from hot to cool over a share (0 to 1) of the steps."""

    def temperature(step: int, steps: int) -> float:
        return temperature_start + (temperature_end - temperature_start) * min(1.0, step / max(1.0, share * steps))

    return figures.temperature_schedule(temperature, steps)


def schedule() -> ipywidgets.Widget:
    """Move the schedule's three numbers; the paper's are where it starts."""
    temperature_start, temperature_end = (ipywidgets.FloatSlider(value, min=0.1, max=1.5, step=0.05, description=name, **SLOW)
                 for name, value in (("start", 1.0), ("end", 0.6)))
    share = ipywidgets.FloatSlider(0.5, min=0.0, max=1.0, step=0.05, description="falls over", **SLOW)
    picture = ipywidgets.Image(format="png", width=560)

    def show(*_) -> None:
        picture.value = schedule_figure(temperature_start.value, temperature_end.value, share.value)._repr_png_()[0]

    return _watched(show, picture, temperature_start, temperature_end, share)


def heat_table(model, tokenizer, prompt: str, completion: str, heats: Sequence[float] = (0.3, 0.6, 1.0, 1.5)) -> str:
    """How likely the next tokens are at several temperatures, where the model is least certain within an answer."""
    asked, said = chat.prompt_ids(tokenizer, prompt), tokenizer(completion).input_ids
    with torch.inference_mode():
        every = model.eval()(torch.tensor([asked + said], device=model.device)).logits[0, len(asked) - 1 : -1]
    place = int(torch.distributions.Categorical(logits=every).entropy().argmax())
    logits, rows = every[place], []
    best = logits.topk(5).indices
    for heat in heats:
        scaled = torch.distributions.Categorical(logits=logits / heat)
        shares = (f"{100 * share:.1f} %" for share in scaled.probs[best].tolist())
        rows.append((f"T = {heat}", *shares, f"{float(scaled.entropy()):.2f}"))
    head = ["", *(repr(tokenizer.decode([token])) for token in best.tolist()), "entropy, nats"]
    return tables.table(f"{prompt} The next token after {tokenizer.decode(said[:place])}", head, rows)


# ------------------------------------------------------------------ rebalancing


def rebalancing_table(groups: Sequence[str], advantage: grpo.Advantage = grpo.rebalance, seed: int = 0) -> str:
    """What plain GRPO and an advantage function make of groups such as "++------" (+ right, - wrong)."""
    rows = []
    for group in groups:
        rewards = torch.tensor([[1.0 if sign == "+" else -1.0 for sign in group]])
        plain, ours = (function(rewards, torch.Generator().manual_seed(seed))[0].tolist()
                       for function in (grpo.group_normalised, advantage))
        signs = (" ".join("0" if value == 0 else f"{value:+.2g}" for value in row) for row in (plain, ours))
        rows.append((f"{group.count('+')} of {len(group)} right", *signs))
    return tables.table("0: this answer teaches nothing.", ("group", "plain GRPO", "rebalanced"), rows)


def rebalancing(size: int = 8) -> ipywidgets.Widget:
    """Say which answers of a group are right; another seed draws other wrong ones."""
    boxes = [
        ipywidgets.Checkbox(index < 2, indent=False, layout=ipywidgets.Layout(width="2em")) for index in range(size)
    ]
    seed = ipywidgets.IntSlider(0, 0, 9, description="seed")
    row = ipywidgets.HBox([ipywidgets.Label("right:"), *boxes])
    view = ipywidgets.HTML()

    def show(*_) -> None:
        view.value = rebalancing_table(["".join("+" if box.value else "-" for box in boxes)], seed=seed.value)

    for box in boxes:
        box.observe(show, "value")
    return _watched(show, view, row, seed)


# ------------------------------------------------------------------ planner


def plan_text(scale_name: str, card: str, gpus: int) -> str:
    """`phi-lab plan` as text, or in one line why there is no plan."""
    config = presets.run_config(scale_name)
    try:
        return plan.table(config, plan.plan(config, card, gpus), card, gpus)
    except UserError as error:
        return str(error)


def planner() -> ipywidgets.Widget:
    """Choose a scale, a card and how many of them."""
    which = ipywidgets.Dropdown(options=schema.SCALES[1:], value="qlora", description="scale")
    card = ipywidgets.Dropdown(options=list(plan.CARDS), value="rtx4090", description="GPU")
    gpus = ipywidgets.SelectionSlider(options=[2**i for i in range(11)], value=1, description="how many", **SLOW)
    return _live(lambda: f"<pre>{text(plan_text(which.value, card.value, gpus.value))}</pre>", which, card, gpus)


# ------------------------------------------------------------------ what all share


def _live(render: Callable[[], str], *controls: ipywidgets.Widget) -> ipywidgets.Widget:
    view = ipywidgets.HTML()

    def show(*_) -> None:
        view.value = render()

    return _watched(show, view, *controls)


def _watched(show: Callable, view: ipywidgets.Widget, *controls: ipywidgets.Widget) -> ipywidgets.Widget:
    """Controls over a view that `show` redraws whenever one of them changes."""
    for control in controls:
        if control.has_trait("value"):
            control.observe(show, "value")
    show()
    return ipywidgets.VBox([*controls, view])
