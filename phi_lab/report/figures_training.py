"""Training curves: the loss, Rollout DPO's margins, GRPO's rewards, and the schedule of the sampling temperature.

The rows are those of a stage's metrics.jsonl: {"step", ...} with a value for each metric that was logged at that step.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from phi_lab.report import plot_style

SIDES = {"chosen": plot_style.GREEN, "rejected": plot_style.RED}


@rc_context(plot_style.RC_PARAMS)
def loss_curve(metrics: Sequence[dict], title: str) -> plot_style.Figure:
    """Training and validation loss (nats a token) by step, from "loss" and "eval_loss" of the rows `metrics`.

    Marks the lowest validation loss and the last step.
    """
    figure, ((axes,),) = plot_style.panels(1, 1, (8, 3.6))
    train, validation = plot_style.series(metrics, "loss"), plot_style.series(metrics, "eval_loss")
    axes.set_title(title)
    if not train[0] + validation[0]:
        plot_style.empty(axes, "no loss was logged")
        figure.alt = f"{title}: no loss was logged."
        return figure
    if train[0]:
        plot_style.curve(axes, *train, plot_style.BLUE, "training")
    if validation[0]:
        axes.plot(*validation, color=plot_style.RED, marker="s", label="validation")
        best = int(np.argmin(validation[1]))
        x, y = validation[0][best], validation[1][best]
        axes.plot(x, y, "*", color=plot_style.RED, markersize=15, label=f"best: {y:.3f} at {x}")
    last = max(train[0] + validation[0])
    plot_style.mark(axes, last, f"stopped at step {last}", left=True)
    axes.set(xlabel="step", ylabel="loss, nats a token")
    values = train[1] + validation[1]
    if min(values) > 0 and max(values) >= 10 * min(values):  # below a decade a logarithmic axis has hardly a tick
        axes.set_yscale("log")
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(_log_tick)  # powers of ten would be formulas, which an SVG page cannot show
    axes.margins(y=0.16)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    parts = [plot_style.from_to(f"{name} loss", points) for name, points in (
        ("training", train), ("validation", validation)) if points[0]]
    best_at = [f"lowest validation loss {y:.3f} at step {x}"] if validation[0] else []
    figure.alt = f"{title}, in nats a token: {'; '.join(parts + best_at)}. Stopped at step {last}."
    return figure


def _log_tick(value: float, _) -> str:
    """Tick labels of a logarithmic axis as plain numbers, at 1, 2 and 5 times powers of ten only."""
    return f"{value:g}" if f"{value:e}"[0] in "125" else ""


@rc_context(plot_style.RC_PARAMS)
def dpo_curves(metrics: Sequence[dict]) -> plot_style.Figure:
    """Rollout DPO: log-probabilities of both sides, reward margin, share of pairs in which the chosen side leads.

    `metrics` has TRL's names: "logps/chosen" and "logps/rejected" (nats, of a whole answer), "rewards/chosen",
    "rewards/rejected", "rewards/accuracies" (0 to 1).
    """
    rewards = (plot_style.series(metrics, f"rewards/{side}") for side in SIDES)
    chosen, rejected = (dict(zip(*points, strict=True)) for points in rewards)
    steps = [step for step in chosen if step in rejected]
    margin = steps, [chosen[step] - rejected[step] for step in steps]
    figure, grid = plot_style.panels(1, 3, (10, 3.3))
    for side, colour in SIDES.items():
        points = plot_style.series(metrics, f"logps/{side}")
        if points[0]:
            plot_style.curve(grid[0, 0], *points, colour, side)
            grid[0, 0].legend()
    grid[0, 0].set_title("Log-probability (nats)")
    _small(grid[0, 1], margin, plot_style.BLUE, "Reward margin")
    accuracies = plot_style.series(metrics, "rewards/accuracies")
    _small(grid[0, 2], accuracies, plot_style.PURPLE, "Chosen preferred (share)")
    for axes in grid[0]:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))  # a short run has three steps
        if not axes.lines:
            plot_style.empty(axes, "not logged")
    lines = [plot_style.from_to(f"log-probability of the {side} side", plot_style.series(metrics, f"logps/{side}"))
             for side in SIDES]
    lines += [plot_style.from_to("reward margin", margin), plot_style.from_to("share of pairs preferred", accuracies)]
    figure.alt = f"Three panels of Rollout DPO by step: {'; '.join(lines)}."
    return figure


def _small(axes: Axes, points: tuple[list, list], colour: str, title: str) -> None:
    axes.set_title(title)
    if points[0]:
        plot_style.curve(axes, *points, colour, title)
    if title.endswith("(share)"):
        axes.set_ylim(0, 1.04)


@rc_context(plot_style.RC_PARAMS)
def rl_curves(metrics: Sequence[dict]) -> plot_style.Figure:
    """GRPO in six panels, from the metrics "reward" (-1 to 1), "zero_variance_share" and "kept_share" (0 to 1),
    "mean_length" (tokens), "entropy" (nats a token) and "temperature".
    """
    measured = (
        ("reward", "Mean reward, −1 to 1", plot_style.GREEN),
        ("zero_variance_share", "Zero-variance groups (share)", plot_style.RED),
        ("kept_share", "Samples kept (share)", plot_style.SKY),
        ("mean_length", "Mean length (tokens)", plot_style.BLUE),
        ("entropy", "Entropy (nats a token)", plot_style.PURPLE),
    )
    figure, grid = plot_style.panels(2, 3, (10, 5.2), sharex=True)
    for axes, (key, title, colour) in zip(grid.flat, measured, strict=False):
        _small(axes, plot_style.series(metrics, key), colour, title)
    schedule = grid[1, 2]  # set, not measured: never smoothed
    schedule.plot(*plot_style.series(metrics, "temperature"), color=plot_style.ORANGE)
    schedule.set(title="Sampling temperature", ylim=(0, 1.1))
    for axes in grid.flat:
        if not any(len(line.get_xdata()) for line in axes.lines):
            plot_style.empty(axes, "not logged")
    for axes in grid[1]:
        axes.set_xlabel("step")
    names = [*((key, title) for key, title, _ in measured), ("temperature", "Sampling temperature")]
    lines = [plot_style.from_to(title, plot_style.series(metrics, key)) for key, title in names]
    figure.alt = f"Six panels of GRPO by step: {'; '.join(lines)}."
    return figure


@rc_context(plot_style.RC_PARAMS)
def temperature_schedule(temperature: Callable[[int, int], float], steps: int) -> plot_style.Figure:
    """The sampling temperature `temperature(step, steps)` over the steps 0 to steps - 1; marks half of the steps."""
    figure, ((axes,),) = plot_style.panels(1, 1, (7, 3))
    y = [temperature(step, steps) for step in range(steps)]
    axes.plot(range(steps), y, color=plot_style.ORANGE)
    axes.plot([0, steps - 1], [y[0], y[-1]], "o", color=plot_style.ORANGE, clip_on=False)
    plot_style.mark(axes, steps / 2, "half-way")
    axes.set(xlabel="step", title="Sampling temperature", ylim=(0, max(y) * 1.15))
    middle = f"{y[steps // 2]:.2f} half-way, at step {steps // 2}"
    figure.alt = f"{plot_style.from_to('Sampling temperature', (range(steps), y))}; {middle}."
    return figure
