"""Small figures that only the notebooks need, in the style of `phi_lab.report.figures`: pure functions of rows.

    python -c "from phi_lab.lab.pictures import verdicts; verdicts({'mid': ['right', 'wrong']}).savefig('verdicts.png')"
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib import rc_context

from phi_lab.report import plot_style
from phi_lab.report.plot_style import VERDICTS


@rc_context(plot_style.RC_PARAMS)
def verdicts(answers: Mapping[str, Sequence[str]], title: str = "") -> plot_style.Figure:
    """The share of each verdict, one bar per model; `answers` maps a model's name to the verdicts on its answers."""
    figure, ((axes,),) = plot_style.panels(1, 1, (9, 1.2 + 0.5 * len(answers)))
    for y, verdict_names in enumerate(answers.values()):
        counts, left = Counter(verdict_names), 0.0
        for verdict, colour in VERDICTS.items():
            share = 100 * counts[verdict] / max(len(verdict_names), 1)
            if share:
                axes.barh(y, share, left=left, color=colour, height=0.62, label=verdict)
            if share >= 6:
                axes.text(left + share / 2, y, f"{share:.0f} %", ha="center", va="center", color=plot_style.PAGE,
                          fontweight="bold")
            left += share
    by_verdict = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each verdict once
    handles = {verdict: by_verdict[verdict] for verdict in VERDICTS if verdict in by_verdict}
    axes.legend(handles.values(), handles, loc="upper left", bbox_to_anchor=(0, -0.02), ncols=5, handlelength=0.9)
    axes.set(yticks=range(len(answers)), yticklabels=list(answers), xticks=[], xlim=(0, 100),
             ylim=(len(answers) - 0.4, -0.6))
    axes.set_title(title)
    plot_style.bare(axes)
    figure.alt = f"{title or 'Verdicts'}: " + "; ".join(map(_shares_in_words, answers, answers.values())) + "."
    return figure


def _shares_in_words(name: str, verdict_names: Sequence[str]) -> str:
    counts, total = Counter(verdict_names), max(len(verdict_names), 1)
    shares = (f"{100 * counts[verdict] / total:.0f} % {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{name} {', '.join(shares) or 'none'}"


@rc_context(plot_style.RC_PARAMS)
def student_likelihood(logprobs: Mapping[str, Sequence[float]], minimum: float) -> plot_style.Figure:
    """Histograms of the student's log-probabilities (nats) of whole rollouts, one for each name in `logprobs`.

    Rollouts above `minimum` are used for training; it is drawn as a line unless it is minus infinity.
    """
    figure, grid = plot_style.panels(len(logprobs), 1, (9, 1 + 1.25 * len(logprobs)), sharex=True)
    for axes, (name, values), colour in zip(grid[:, 0], logprobs.items(), plot_style.SERIES, strict=False):
        axes.hist([max(value, -40.0) for value in values], bins=range(-40, 1), color=colour)
        share = 100 * sum(value >= minimum for value in values) / max(len(values), 1)
        if math.isinf(minimum):
            axes.set_title(f"{name}: {len(values):,}, all of which are used")
            continue
        axes.set_title(f"{name}: {len(values):,}, of which {share:.0f} % above {minimum:.0f} nats")
        axes.axvline(minimum, color=plot_style.INK, **plot_style.DASHED)
    grid[-1, 0].set_xlabel("log-probability under the model, nats (all below -40 at -40)")
    titles = (axes.get_title(loc="left") for axes in grid[:, 0])
    figure.alt = f"Histograms of log-probabilities. {'. '.join(titles)}."
    return figure


@rc_context(plot_style.RC_PARAMS)
def groups(rewards: Sequence[Sequence[float]], advantages: Sequence[Sequence[float]]) -> plot_style.Figure:
    """Groups of rewards and the advantages of the same answers: one row for each prompt, one square for each answer."""
    figure, grid = plot_style.panels(1, 2, (9.5, 1.2 + 0.3 * len(rewards)), sharey=True)
    for axes, kept, title in (
        (grid[0, 0], None, "Sampled: right ✓ or wrong ✗"),
        (grid[0, 1], advantages, "Advantage in the loss"),
    ):
        for y, row in enumerate(rewards):
            for x, reward in enumerate(row):
                colour, sign = (VERDICTS["right"], "✓") if reward > 0 else (VERDICTS["wrong"], "✗")
                strong = 1.0 if kept is None or kept[y][x] else 0.13
                axes.barh(y, 0.86, left=x, height=0.8, color=colour, alpha=strong)
                label = sign if kept is None else f"{kept[y][x]:+.1f}" if kept[y][x] else ""
                axes.text(x + 0.43, y, label, ha="center", va="center", color=plot_style.PAGE, fontsize=9)
        axes.set(xlim=(0, max(map(len, rewards))), ylim=(len(rewards) - 0.4, -0.6), xticks=[], yticks=[])
        axes.set_title(title)
        plot_style.bare(axes)
    grid[0, 0].set_ylabel("one prompt a row")
    right = ", ".join(f"{sum(reward > 0 for reward in row)} of {len(row)}" for row in rewards)
    kept = sum(value != 0 for row in advantages for value in row)
    figure.alt = f"Right answers of each prompt: {right}. {kept} of {sum(map(len, rewards))} answers have an advantage."
    return figure


@rc_context(plot_style.RC_PARAMS)
def intervals(rows: Sequence[tuple[str, float, float, float]], title: str, unit: str = "%") -> plot_style.Figure:
    """Estimates with their intervals; each row is (name, value, low, high), in `unit`."""
    figure, ((axes,),) = plot_style.panels(1, 1, (8, 1.1 + 0.42 * len(rows)))
    for y, (_, value, low, high) in enumerate(rows):
        axes.plot([low, high], [y, y], color=plot_style.BLUE, linewidth=2)
        axes.plot(value, y, "o", color=plot_style.BLUE)
        axes.annotate(
            f"{value:.1f} {unit}  [{low:.1f}, {high:.1f}]", (high, y), xytext=(10, 0), textcoords="offset points",
            va="center", annotation_clip=False,
        )
    axes.set(yticks=range(len(rows)), yticklabels=[row[0] for row in rows], ylim=(len(rows) - 0.5, -0.5))
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set_title(title)
    if rows:
        lowest, highest = min(row[2] for row in rows), max(row[3] for row in rows)
        axes.set_xlim(lowest - 0.05 * (highest - lowest), highest + 0.45 * (highest - lowest))
    lines = (f"{name} {value:.1f} {unit}, from {low:.1f} to {high:.1f}" for name, value, low, high in rows)
    figure.alt = f"{title}, with intervals: {'; '.join(lines) or 'nothing'}."
    return figure


@rc_context(plot_style.RC_PARAMS)
def curves(rows: Sequence[Mapping], names: Mapping[str, str], title: str, unit: str) -> plot_style.Figure:
    """One line over "step" for each metric of a loop's `rows`; `names` maps a metric to its label, `unit` is of all."""
    figure, ((axes,),) = plot_style.panels(1, 1, (8, 3.2))
    lines = []
    for (key, label), colour, marker in zip(names.items(), plot_style.SERIES, "os^Dv", strict=False):
        points = plot_style.series(rows, key)
        axes.plot(*points, color=colour, marker=marker, markersize=4, label=label)
        lines.append(plot_style.from_to(label, points))
    axes.set(xlabel="step", ylabel=unit)
    axes.set_title(title)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.alt = f"{title}: {'; '.join(lines)}."
    return figure
