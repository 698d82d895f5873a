"""The ladder: accuracy after each stage, of one run (beside the paper's) and over independent replications.

`PAPER` holds the published ladder (arXiv 2504.21233) for its shape only: it is of another model, at another scale, on
other benchmarks. Easy, hard and transfer stand in for MATH-500, AIME 2024 and GPQA Diamond.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from phi_lab.core import stats
from phi_lab.report import plot_style
from phi_lab.report.chain_rows import Chain, all_names, chains, compared, paired_accuracies
from phi_lab.report.ladder_rows import (
    RIVALS,
    SHIPPED_START,
    STAGE_TITLES,
    protocol,
    shipped_starts,
    shipped_starts_in,
)
from phi_lab.report.plot_style import BENCHMARKS

PAPER = {  # percent after each stage
    "easy": ("MATH-500", (71.8, 82.9, 89.3, 93.6, 94.6)),
    "hard": ("AIME 2024", (10.0, 30.0, 43.3, 50.0, 57.5)),
    "transfer": ("GPQA-D", (36.9, 42.6, 48.3, 49.0, 52.0)),
}
HOLLOW = {"color": plot_style.SOFT, "linestyle": "none", "markerfacecolor": plot_style.PAGE}  # controls


@rc_context(plot_style.RC_PARAMS)
def ladder(rows: Sequence[dict], paper: bool = True) -> plot_style.Figure:
    """Accuracy (percent) after each stage with 95 % intervals; `rows` are those of ladder.json.

    Lines join the sampled rows (see `protocol`) of arm "main"; other arms are hollow marks beside them, the lowest one
    of each labelled with the arm's name. A stage that started from a shipped checkpoint is joined to that checkpoint by
    a broken line, and not to the stage before. With `paper`, a smaller panel shows the published ladder's shape.
    """
    ratios = {"width_ratios": [2.1, 1]} if paper else None
    figure, grid = plot_style.panels(1, 1 + paper, (10, 4.6), sharey=True, gridspec_kw=ratios)
    axes = grid[0, 0]
    stages = [stage for stage in STAGE_TITLES if any(row["stage"] == stage for row in rows)]
    starts = shipped_starts_in(rows)
    sampled = sorted((row for row in rows if protocol(row) == "sampled"), key=lambda row: stages.index(row["stage"]))
    step = 0.012 * max(len(stages), 1)  # benchmarks stand side by side, or intervals would overlap
    ends, right = [], len(stages) - 1 + step  # the labels of the lines stand right of every mark
    lowest: dict[str, tuple[float, float]] = {}  # arm -> lower end of its lowest interval, percent; x
    for index, benchmark in enumerate(BENCHMARKS):
        of_benchmark = [row for row in sampled if row["benchmark"] == benchmark]
        points = {}
        arms = sorted({row["arm"] for row in of_benchmark}, key=lambda arm: (arm != "main", arm))
        for arm in arms:
            of_arm = [row for row in of_benchmark if row["arm"] == arm]
            shift = (index - 1) * step
            x = np.array([stages.index(row["stage"]) + shift + _beside(row, of_benchmark) for row in of_arm])
            y = _plot_arm(axes, of_arm, x, starts)
            points |= {(row["stage"], arm): point for row, *point in zip(of_arm, x, y, strict=True)}
            if arm == "main":
                ends.append((y[-1], f"{benchmark} {y[-1]:.1f} %", BENCHMARKS[benchmark][0]))
            elif arm != SHIPPED_START:
                end = 100 * min(of_arm[-1]["accuracy"], of_arm[-1]["ci_low"])
                lowest[arm] = min(lowest.get(arm, (end, x[-1])), (end, x[-1]))
                right = max(right, *x)
        for stage, before in starts.items():
            if (stage, "main") in points and (before, SHIPPED_START) in points:
                line = zip(points[before, SHIPPED_START], points[stage, "main"], strict=True)
                axes.plot(*line, color=BENCHMARKS[benchmark][0], label=f"{benchmark}, from a shipped checkpoint",
                          **plot_style.DASHED)
    for arm, (y, x) in lowest.items():
        axes.annotate(arm, (x, y), xytext=(0, -4), textcoords="offset points", ha="center", va="top",
                      color=plot_style.SOFT, fontsize=8.5)
    plot_style.end_labels(axes, ends, x=right)
    broken = ", broken: from a shipped checkpoint" if starts else ""
    axes.set(title=f"This run{broken}", ylabel="right answers, %", ylim=(0, 104))
    _stage_ticks(axes, stages, starts)
    axes.set_xlim(right=max(axes.get_xlim()[1], right + 0.15))
    if not stages:
        plot_style.empty(axes, "nothing measured yet")
    if paper:
        _paper_panel(grid[0, 1])
    figure.alt = _ladder_in_words(sampled, paper)
    return figure


def _beside(row: dict, rows: Sequence[dict]) -> float:
    """How far an arm's mark stands right of its stage: the arms of one stage side by side, a shipped start between two
    stages.
    """
    if row["arm"] in ("main", SHIPPED_START):
        return 0.5 if row["arm"] == SHIPPED_START else 0.0
    arms = {other["arm"] for other in rows if other["stage"] == row["stage"]} - {"main", SHIPPED_START}
    return 0.22 + 0.12 * sorted(arms).index(row["arm"])


def _ladder_in_words(rows: Sequence[dict], paper: bool) -> str:
    """rows: the sampled ones, by stage."""
    lines = []
    for benchmark, arm in dict.fromkeys((row["benchmark"], row["arm"]) for row in rows):
        of_arm = [row for row in rows if (row["benchmark"], row["arm"]) == (benchmark, arm)]
        name = benchmark if arm == "main" else f"{benchmark}, arm {arm}"
        values = (f"{STAGE_TITLES[row['stage']]} {100 * row['accuracy']:.1f}" for row in of_arm)
        lines.append(f"{name}: {', '.join(values)}")
    beside = [f"{title} {percent[0]} to {percent[-1]}" for title, percent in PAPER.values()] if paper else []
    words = f"Right answers after each stage, percent. {'; '.join(lines) or 'nothing measured yet'}."
    return words + (f" Beside it the paper's, base to last stage: {', '.join(beside)}." if paper else "")


def _plot_arm(axes: Axes, rows: Sequence[dict], x: np.ndarray, starts: Mapping[str, str]) -> np.ndarray:
    """Draw one arm on one benchmark, and return its accuracies in percent."""
    benchmark, arm = rows[0]["benchmark"], rows[0]["arm"]
    (colour, shape), main = BENCHMARKS[benchmark], arm == "main"
    y = np.array([100 * row["accuracy"] for row in rows])
    # A rounded accuracy may lie outside of its own interval by a hair: no whisker is shorter than zero.
    low = np.maximum(0, y - [100 * row["ci_low"] for row in rows])
    high = np.maximum(0, [100 * row["ci_high"] for row in rows] - y)
    for segment in _segments([row["stage"] for row in rows], starts if main else {}):
        axes.errorbar(
            x[segment], y[segment], yerr=[low[segment], high[segment]], color=colour, marker=shape, capsize=3,
            elinewidth=1.4, linestyle="-" if main else "none", label=benchmark if main else f"{benchmark}, arm {arm}",
            markerfacecolor=None if main else plot_style.PAGE,
        )
    return y


def _paper_panel(axes: Axes) -> None:
    for name, (colour, shape) in BENCHMARKS.items():
        axes.plot(range(5), PAPER[name][1], color=colour, marker=shape, alpha=0.75)
    labels = [(percent[-1], f"{title} {percent[-1]:.1f} %") for title, percent in PAPER.values()]
    colours = [colour for colour, _ in BENCHMARKS.values()]
    plot_style.end_labels(axes, [(*label, c) for label, c in zip(labels, colours, strict=True)], x=4)
    axes.set_title("The paper, 3.8 B parameters")
    _stage_ticks(axes, list(STAGE_TITLES), {})
    axes.tick_params(axis="x", labelrotation=35)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")


@rc_context(plot_style.RC_PARAMS)
def replications(
    rows: Sequence[dict], verdicts: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> plot_style.Figure:
    """Accuracy on `hard` (percent) of independent chains after each stage; `rows` are those of chains.jsonl, `verdicts`
    the words for what was compared with what, such as ("sft", "mid").

    First panel: each chain as a thin line, their mean with its 95 % t interval as a bold one, and the same for what
    else the compute could have bought as hollow marks (`ladder_rows.RIVALS`); a diamond is Rollout DPO as in the paper.
    Second panel: paired differences in points of every comparison after mid-training, which the scale of the first
    panel hides, solid with the rung before and hollow with rivals, and their verdicts.
    """
    figure, grid = plot_style.panels(1, 2, (11, 4.9), gridspec_kw={"width_ratios": [1.5, 1]})
    made = chains(rows)
    values = {name: np.array([100 * share for chain in made if (share := chain.accuracy(name)) is not None])
              for name in all_names(made)}
    colour = BENCHMARKS["hard"][0]
    _chains_panel(grid[0, 0], made, values, colour)
    grid[0, 0].set(title=f"{len(made)} independent chains, hard", ylabel="right answers, %", ylim=(0, 104))
    _gains_panel(grid[0, 1], made, list(values), colour, verdicts)
    means = ", ".join(f"{name} {value.mean():.1f}" for name, value in values.items())
    figure.alt = f"Right answers on hard, percent, means of {len(made)} independent chains: {means}."
    if verdicts:
        said = "; ".join(f"{name} − {against}: {verdict}" for (name, against), verdict in verdicts.items())
        figure.alt += f" Differences, with Holm's correction: {said}."
    return figure


def _chains_panel(axes: Axes, made: Sequence[Chain], values: Mapping[str, np.ndarray], colour: str) -> None:
    stages, starts = list(STAGE_TITLES), shipped_starts(values)
    segments = _segments(stages, starts)
    for chain in made:
        for segment in segments:
            y = [np.nan if (share := chain.accuracy(stages[place])) is None else 100 * share for place in segment]
            axes.plot(segment, y, color=colour, alpha=0.3, linewidth=1)

    def plot_means(names: Sequence[str], x: Sequence[float], label: str, marker: str = "s", **style: object) -> None:
        samples = [values[name] for name in names]
        margin = [stats.t_quantile(len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0 for v in samples]
        axes.errorbar(x, [v.mean() for v in samples], yerr=margin, marker=marker, capsize=3, elinewidth=1.4,
                      label=label, **style)

    for segment in segments:
        there = [place for place in segment if stages[place] in values]
        plot_means([stages[place] for place in there], there,
                   "mean of the chains, 95 % interval" if segment is segments[0] else "", color=colour)
    beside = [(name, place + 0.13 * (number + 1)) for place, stage in enumerate(stages)
              for number, name in enumerate(RIVALS.get(stage, ())) if name in values]
    plot_means([name for name, _ in beside], [x for _, x in beside], "the same compute spent otherwise", **HOLLOW)
    if "dpo-paper" in values:
        plot_means(["dpo-paper"], [stages.index("dpo") - 0.13], "Rollout DPO as in the paper", "D", **HOLLOW)
    axes.legend(loc="lower right")
    _stage_ticks(axes, stages, starts)
    axes.set_xlim(right=max([axes.get_xlim()[1], *(x + 0.15 for _, x in beside)]))


def _gains_panel(
    axes: Axes, made: Sequence[Chain], names: Sequence[str], colour: str, verdicts: Mapping[tuple[str, str], str]
) -> None:
    shown = [(name, against) for name, against in compared(names) if name in ("sft", "dpo", "dpo-paper", "grpo")]
    lines = []
    for name, against in shown:
        both = paired_accuracies(made, name, against)
        if len(both) > 1:
            lines.append((name, against, stats.paired_t(*(100 * np.array(side) for side in zip(*both, strict=True)))))
    for y, (name, against, gain) in enumerate(lines):
        rival = against in RIVALS[name] and name != "dpo-paper"
        axes.errorbar([gain.mean], [y], xerr=[[gain.mean - gain.low], [gain.high - gain.mean]], marker="s", capsize=3,
                      elinewidth=1.4, **(HOLLOW if rival else {"color": colour, "linestyle": "none"}))
    axes.axvline(0, color=plot_style.SOFT, linewidth=1)
    axes.set_yticks(range(len(lines)), [f"{name} − {against}" for name, against, _ in lines])
    axes.set(title="Differences, points", ylim=(len(lines) - 0.5, -0.5))
    if verdicts:
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(range(len(lines)), [verdicts.get((name, against), "") for name, against, _ in lines])
        beside.tick_params(length=0)
        beside.spines["right"].set_visible(False)


def _segments(stages: Sequence[str], starts: Mapping[str, str]) -> list[list[int]]:
    """The places of the stages, split before each stage that started from a shipped checkpoint."""
    segments: list[list[int]] = []
    for place, stage in enumerate(stages):
        if not segments or stage in starts:
            segments.append([])
        segments[-1].append(place)
    return segments


def _stage_ticks(axes: Axes, stages: Sequence[str], starts: Mapping[str, str]) -> None:
    notes = {stage: f"\nstarts from\nshipped {before}" for stage, before in starts.items()}
    axes.set_xticks(range(len(stages)), [STAGE_TITLES[stage] + notes.get(stage, "") for stage in stages])
    axes.set_xlim(-0.3, max(len(stages) - 1, 1) + 0.3)
