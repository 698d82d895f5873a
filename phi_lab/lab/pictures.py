"""Small pictures that only the notebooks need, in the look of `phi_lab.report.figures`: pure functions of rows.

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
    """Shares of each verdict, a bar a model; `answers` maps a name to its verdicts."""
    figure, ((axes,),) = plot_style.panels(1, 1, (9, 1.2 + 0.5 * len(answers)))
    for y, said in enumerate(answers.values()):
        counts, left = Counter(said), 0.0
        for verdict, colour in VERDICTS.items():
            share = 100 * counts[verdict] / max(len(said), 1)
            if share:
                axes.barh(y, share, left=left, color=colour, height=0.62, label=verdict)
            if share >= 6:
                axes.text(
                    left + share / 2, y, f"{share:.0f} %", ha="center", va="center", color=plot_style.PAGE, fontweight="bold"
                )
            left += share
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # a name a colour, once
    handles = {verdict: found[verdict] for verdict in VERDICTS if verdict in found}
    axes.legend(handles.values(), handles, loc="upper left", bbox_to_anchor=(0, -0.02), ncols=5, handlelength=0.9)
    axes.set(
        yticks=range(len(answers)), yticklabels=list(answers), xticks=[], xlim=(0, 100), ylim=(len(answers) - 0.4, -0.6)
    )
    axes.set_title(title)
    plot_style.bare(axes)
    return figure


@rc_context(plot_style.RC_PARAMS)
def plausibility(found: Mapping[str, Sequence[float]], least: float) -> plot_style.Figure:
    """Log-probabilities (nats) of whole rollouts under a model, a histogram a name; right of `least` counts, and where
    that is minus infinity all do.
    """
    figure, grid = plot_style.panels(len(found), 1, (9, 1 + 1.25 * len(found)), sharex=True)
    for axes, (name, values), colour in zip(grid[:, 0], found.items(), plot_style.SERIES, strict=False):
        axes.hist([max(value, -40.0) for value in values], bins=range(-40, 1), color=colour)
        share = 100 * sum(value >= least for value in values) / max(len(values), 1)
        if math.isinf(least):
            axes.set_title(f"{name}: {len(values):,}, all of which count")
            continue
        axes.set_title(f"{name}: {len(values):,}, of which {share:.0f} % above {least:.0f} nats")
        axes.axvline(least, color=plot_style.INK, **plot_style.DASHED)
    grid[-1, 0].set_xlabel("log-probability under the model, nats (all below -40 at -40)")
    return figure


@rc_context(plot_style.RC_PARAMS)
def groups(before: Sequence[Sequence[float]], advantages: Sequence[Sequence[float]]) -> plot_style.Figure:
    """Groups of rewards and what an advantage function keeps: a row a prompt, a square an answer."""
    figure, grid = plot_style.panels(1, 2, (9.5, 1.2 + 0.3 * len(before)), sharey=True)
    for axes, kept, title in (
        (grid[0, 0], None, "Sampled: right ✓ or wrong ✗"),
        (grid[0, 1], advantages, "Counts for the loss"),
    ):
        for y, row in enumerate(before):
            for x, reward in enumerate(row):
                colour, sign = (VERDICTS["right"], "✓") if reward > 0 else (VERDICTS["wrong"], "✗")
                strong = 1.0 if kept is None or kept[y][x] else 0.13
                axes.barh(y, 0.86, left=x, height=0.8, color=colour, alpha=strong)
                said = sign if kept is None else f"{kept[y][x]:+.1f}" if kept[y][x] else ""
                axes.text(x + 0.43, y, said, ha="center", va="center", color=plot_style.PAGE, fontsize=9)
        axes.set(xlim=(0, max(map(len, before))), ylim=(len(before) - 0.4, -0.6), xticks=[], yticks=[])
        axes.set_title(title)
        plot_style.bare(axes)
    grid[0, 0].set_ylabel("a prompt a row")
    return figure


@rc_context(plot_style.RC_PARAMS)
def intervals(rows: Sequence[tuple[str, float, float, float]], title: str, unit: str = "%") -> plot_style.Figure:
    """Estimates with their intervals; rows are (name, value, low, high), all in `unit`."""
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
        least, most = min(row[2] for row in rows), max(row[3] for row in rows)
        axes.set_xlim(least - 0.05 * (most - least), most + 0.45 * (most - least))
    return figure
