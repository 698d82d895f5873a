"""Rollouts and batches as figures: what each filter removes, how long answers are, how documents fill rows."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from phi_lab.report import plot_style
from phi_lab.report.plot_style import VERDICTS


@rc_context(plot_style.RC_PARAMS)
def funnel(funnel: dict) -> plot_style.Figure:
    """How many rollouts each filter keeps, and how many got each verdict; what a filter removes is drawn pale.

    `funnel` is data/funnel.json: {"questions", "rollouts", "steps": [{"name", "kept", "removed", "why"}, ...],
    "verdicts": {verdict: count}}.
    """
    steps = [{"name": "sampled", "kept": funnel["rollouts"], "removed": 0}, *funnel["steps"]]
    total = max(funnel["rollouts"], 1)
    ratios = {"height_ratios": [len(steps) * 0.8, 1]}
    figure, grid = plot_style.panels(2, 1, (9.5, 1.9 + 0.5 * len(steps)), gridspec_kw=ratios)
    axes, bar = grid[:, 0]
    kept, removed = [step["kept"] for step in steps], [step["removed"] for step in steps]
    axes.barh(range(len(steps)), kept, color=plot_style.BLUE, height=0.62)
    axes.barh(range(len(steps)), removed, left=kept, color=plot_style.BLUE, alpha=0.2, height=0.62)
    for y, step in enumerate(steps):
        why = f"   − {step['removed']:,}: {step['why']}" if step["removed"] else ""
        axes.annotate(
            f"{step['kept']:,}  ({100 * step['kept'] / total:.0f} %){why}", (step["kept"] + step["removed"], y),
            xytext=(8, 0), textcoords="offset points", va="center", annotation_clip=False,
        )
    axes.set_yticks(range(len(steps)), [step["name"] for step in steps])
    title = f"{funnel['questions']:,} questions, {funnel['rollouts']:,} rollouts"
    axes.set(title=title, xticks=[], ylim=(len(steps) - 0.4, -0.6), xlim=(0, total * 1.02))
    left = 0
    for name, colour in VERDICTS.items():
        count = funnel["verdicts"].get(name, 0)
        if count:
            bar.barh(0, count, left=left, color=colour, height=0.6, label=f"{name} {count:,}")
            left += count
    bar.set(title="Verdicts", xticks=[], yticks=[], ylim=(-0.4, 0.4), xlim=(0, max(left, 1) * 1.02))
    if left:
        bar.legend(
            loc="upper left", bbox_to_anchor=(0, -0.02), ncols=5, borderaxespad=0,
            handlelength=0.9, handleheight=0.9, columnspacing=1.6,
        )
    plot_style.bare(axes)
    plot_style.bare(bar)
    left = ", ".join(f"{step['name']} {step['kept']:,}" for step in steps[1:]) or "no filter"
    counts = ", ".join(f"{name} {count:,}" for name, count in funnel["verdicts"].items() if count) or "none"
    figure.alt = f"Bars: {title}. Left after each filter: {left}. Verdicts: {counts}."
    return figure


@rc_context(plot_style.RC_PARAMS)
def lengths(
    rollouts: Sequence[dict], by: str = "verdict", things: str = "answers", label: str = "tokens in the answer"
) -> plot_style.Figure:
    """Histograms of the length (tokens) of answers, or of other `things`: one for each value of the field `by`.

    `rollouts` are rows with "tokens" and `by` ("verdict", "style", ...). The dashed line is the median.
    """
    groups: dict[str, list[int]] = {}
    for row in rollouts:
        groups.setdefault(str(row[by]), []).append(row["tokens"])
    names = [v for v in VERDICTS if v in groups] + sorted(set(groups) - set(VERDICTS))
    count = max(len(names), 1)
    figure, grid = plot_style.panels(count, 1, (9, 1 + 1.25 * count), sharex=True)
    if not names:
        plot_style.empty(grid[0, 0], "no rollouts")
        figure.alt = "An empty histogram: no rollouts."
        return figure
    edges = np.histogram_bin_edges([row["tokens"] for row in rollouts], bins=40)
    for index, (axes, name) in enumerate(zip(grid[:, 0], names, strict=True)):
        colour = VERDICTS.get(name, plot_style.SERIES[index % len(plot_style.SERIES)])
        axes.hist(groups[name], bins=edges, color=colour)
        median = float(np.median(groups[name]))
        axes.axvline(median, color=plot_style.INK, **plot_style.DASHED)
        axes.set_title(f"{name}: {len(groups[name]):,} {things}, median {median:.0f} tokens")
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    grid[-1, 0].set_xlabel(label)
    figure.alt = f"Histograms of {label}. " + ". ".join(axes.get_title(loc="left") for axes in grid[:, 0]) + "."
    return figure


@rc_context(plot_style.RC_PARAMS)
def packing(rows: Sequence[Sequence[int]], row_length: int) -> plot_style.Figure:
    """The rows of a batch: documents as coloured blocks, padding grey.

    `rows[i]` are the document lengths (tokens) in row i; a row holds `row_length` tokens. At most 24 rows are drawn;
    the share in the title counts all of them. Raises ValueError where a row holds more than `row_length` tokens.
    """
    if any(sum(row) > row_length for row in rows):
        raise ValueError(f"a row holds more than {row_length} tokens")
    used = 100 * sum(map(sum, rows)) / max(len(rows) * row_length, 1)
    drawn, colour = list(rows[:24]), 0
    figure, ((axes,),) = plot_style.panels(1, 1, (9, 1.3 + 0.24 * max(len(drawn), 2)))
    for y, row in enumerate(drawn):
        axes.barh(y, row_length, height=0.78, color=plot_style.LINE)  # the part that no document covers is padding
        start = 0
        for length in row:
            block = plot_style.SERIES[colour % len(plot_style.SERIES)]
            axes.barh(y, length, left=start, height=0.78, color=block, edgecolor=plot_style.PAGE)
            start, colour = start + length, colour + 1
    more = f" (the first {len(drawn)} drawn)" if len(rows) > len(drawn) else ""
    axes.set_title(f"{sum(map(len, rows))} documents in {len(rows)} rows{more}: {used:.0f} % used")
    figure.alt = f"Rows of {row_length} tokens, documents as blocks, padding grey. {axes.get_title(loc='left')}."
    axes.set(xlim=(0, row_length), ylim=(len(drawn) - 0.4, -0.6), yticks=[])
    axes.set_xlabel("tokens (grey: padding)")
    plot_style.bare(axes)
    return figure
