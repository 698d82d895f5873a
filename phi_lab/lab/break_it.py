"""Break it yourself: name a cause of failure, predict what it does, run it, and compare.

    causes = {"reward for length": lambda: failures.paid_by_length(model, tokenizer, problems)}
    break_it.widget(causes)                                     # with a running kernel
    break_it.gallery_table({name: run() for name, run in causes.items()})  # its static twin: all of them

What is predicted is a direction: does the reward rise, fall or stay, and the length of the answers, and how many of
them are right? `outcome` reads the same three from what training left.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import mean

import ipywidgets
from matplotlib import rc_context

from phi_lab.core.formatting import percent
from phi_lab.lab import tables
from phi_lab.lab.failures import Failure
from phi_lab.report import plot_style
from phi_lab.report.html import text

RISES, FALLS, STAYS = DIRECTIONS = ("rises", "falls", "stays")
QUANTITIES = {"reward": "the reward", "length": "tokens an answer", "right": "right answers"}
CLEAR = {"reward": 0.05, "length": 5.0, "right": 0.1}  # a smaller change counts as none, whatever the noise


def direction(values: Sequence[float], smallest: float) -> str:
    """Whether a curve "rises", "falls" or "stays": the mean of its last third against that of its first.

    It stays where they differ by less than `smallest`, or by less than two standard errors, for which neighbouring
    steps tell the noise. Two values are compared by `smallest` alone.
    """
    third = max(1, len(values) // 3)
    change = mean(values[-third:]) - mean(values[:third])
    steps = [abs(after - before) for before, after in pairwise(values)]
    noise = mean(steps) / 1.128 if len(values) > 3 else 0.0  # a normal's mean distance of two draws is 1.128 sd
    if abs(change) < max(smallest, 2 * noise * (2 / third) ** 0.5):
        return STAYS
    return RISES if change > 0 else FALLS


def outcome(failure: Failure) -> dict[str, str]:
    """For each of QUANTITIES what it did: "rises", "falls" or "stays"."""
    curves = {
        "reward": [row["reward"] for row in failure.rows], "length": [row["mean_length"] for row in failure.rows],
        "right": failure.right,
    }
    return {name: direction(values, CLEAR[name]) for name, values in curves.items()}


def compared(failure: Failure, predicted: Mapping[str, str]) -> str:
    """A table of what was predicted and what was seen, with ✓ where both agree."""
    rows, seen = failure.rows, outcome(failure)
    numbers = {
        "reward": f"{rows[0]['reward']:+.2f} at the first step, {rows[-1]['reward']:+.2f} at the last",
        "length": f"{rows[0]['mean_length']:.0f} at the first step, {rows[-1]['mean_length']:.0f} at the last",
        "right": f"{percent(failure.right[0])} before, {percent(failure.right[1])} after",
    }
    lines = [(title, predicted[name], seen[name], "✓" if predicted[name] == seen[name] else "✗", numbers[name])
             for name, title in QUANTITIES.items()]
    held = sum(line[3] == "✓" for line in lines)
    caption = f"{held} of {len(lines)} predictions held. A change within the noise of the steps counts as none."
    return tables.table(caption, ("", "predicted", "seen", "", "numbers"), lines)


@rc_context(plot_style.RC_PARAMS)
def figure(failure: Failure, title: str) -> plot_style.Figure:
    """The reward (and, where it is logged beside, the share of right answers) and the length over the steps."""
    drawn, ((rewards, lengths),) = plot_style.panels(1, 2, (9.5, 2.9))
    words = []
    shown = [(rewards, "reward", "mean reward", plot_style.BLUE, "o")]
    if "accuracy" in failure.rows[0]:
        shown.append((rewards, "accuracy", "share right", plot_style.GREEN, "s"))
    for axes, key, label, colour, marker in [*shown, (lengths, "mean_length", "tokens an answer", plot_style.RED, "^")]:
        points = plot_style.series(failure.rows, key)
        axes.plot(*points, color=colour, marker=marker, markersize=4, label=label)
        words.append(plot_style.from_to(label, points))
    rewards.set_title(title)
    lengths.set_title("tokens an answer")
    for axes in (rewards, lengths):
        axes.set_xlabel("step")
    rewards.legend(loc="best")
    lengths.set_ylim(bottom=0)
    drawn.alt = f"{title}: {'; '.join(words)}."
    return drawn


def found(failure: Failure) -> str:
    """The names of what the doctor finds, each once."""
    return ", ".join(dict.fromkeys(finding.rule for finding in failure.findings)) or "nothing"


def shown(failure: Failure, title: str, predicted: Mapping[str, str]) -> str:
    """Everything that a run tells, as HTML: curves, prediction, an answer afterwards, and the doctor's words."""
    one = failure.answers[0]
    said = "".join(f"<li><b>{text(finding.rule)}</b>: {text(finding.seen)}</li>" for finding in failure.findings)
    return (
        f"{figure(failure, title)._repr_html_()}{compared(failure, predicted)}"
        f"<p>An answer afterwards, to {text(one['prompt'])} {tables.badge(one['verdict'])}</p>"
        f'<div style="{tables.WORK}">{text(one["completion"][:400])}</div>'
        f"<p>The doctor finds {text(found(failure))}.</p><ul>{said}</ul>"
    )


def gallery_table(gallery: Mapping[str, Failure]) -> str:
    """One line for each failure: reward and length at the first and last step, right answers before and after, an
    answer, and what the doctor finds.
    """
    lines = [
        (name, f"{failure.rows[0]['reward']:+.2f}, {failure.rows[-1]['reward']:+.2f}",
         f"{failure.rows[0]['mean_length']:.0f}, {failure.rows[-1]['mean_length']:.0f}",
         f"{percent(failure.right[0])} → {percent(failure.right[1])}",
         failure.answers[0]["completion"][:60], found(failure))
        for name, failure in gallery.items()
    ]
    head = ("cause", "reward, first and last step", "tokens an answer", "right, before → after",
            "an answer afterwards", "the doctor finds")
    return tables.table("", head, lines)


def widget(causes: Mapping[str, Callable[[], Failure]]) -> ipywidgets.Widget:
    """Choose a cause, predict three directions, and run it. `causes` maps a name to what trains and examines."""
    cause = ipywidgets.Dropdown(options=list(causes), description="cause")
    guesses = {
        name: ipywidgets.RadioButtons(options=DIRECTIONS, value=None, description=title,
                                      style={"description_width": "initial"})
        for name, title in QUANTITIES.items()
    }
    run = ipywidgets.Button(description="predict first", disabled=True, button_style="primary")
    view = ipywidgets.HTML()

    def update(_) -> None:
        missing = any(guess.value is None for guess in guesses.values())
        run.disabled, run.description = missing, "predict first" if missing else "run it"

    def forget(_) -> None:
        view.value = ""
        for guess in guesses.values():
            guess.value = None

    def start(_) -> None:
        run.disabled, run.description = True, "training …"
        view.value = "<p>A copy of the model is trained; this takes up to a minute.</p>"
        try:
            predicted = {name: guess.value for name, guess in guesses.items()}
            view.value = shown(causes[cause.value](), cause.value, predicted)
        finally:  # also where training is interrupted
            update(None)

    for guess in guesses.values():
        guess.observe(update, "value")
    cause.observe(forget, "value")
    run.on_click(start)
    return ipywidgets.VBox([cause, ipywidgets.HBox(list(guesses.values())), run, view])
