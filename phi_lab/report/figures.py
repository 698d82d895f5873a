"""The pictures of the course, the same ones in the notebooks and in the report.

The idea: a figure is a pure function of rows that a stage wrote. Each function returns a Figure
that shows itself in Jupyter; none calls `show()` or touches pyplot.

`PAPER` holds the published ladder (arXiv 2504.21233) for its shape only: another model, another
scale, other benchmarks. Easy, hard and transfer play the parts of MATH-500, AIME 2024 and GPQA-D.

Try it:  python -c "from phi_lab.report.figures import ladder; ladder([]).savefig('ladder.png')"
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from phi_lab.core import stats
from phi_lab.report import plot_style
from phi_lab.report.plot_style import BENCHMARKS, VERDICTS

STAGES = {
    "base": "base", "mid": "mid-training", "sft": "SFT", "dpo": "Rollout DPO", "grpo": "GRPO",
}
PAPER = {  # percent after each stage
    "easy": ("MATH-500", (71.8, 82.9, 89.3, 93.6, 94.6)),
    "hard": ("AIME 2024", (10.0, 30.0, 43.3, 50.0, 57.5)),
    "transfer": ("GPQA-D", (36.9, 42.6, 48.3, 49.0, 52.0)),
}


START = "shipped"  # the arm of rows of ladder.json that measure a shipped checkpoint from which the next stage started


def starts(names: Iterable[str]) -> dict[str, str]:
    """{stage: the stage before} for stages that started from a shipped checkpoint and not from the run's own model of
    the stage before; `names` are the run's models, those checkpoints among them as "mid-shipped" and so on.
    """
    after = dict(pairwise(STAGES))
    return {after[name.partition("-")[0]]: name.partition("-")[0] for name in names if name.endswith(f"-{START}")}


def started(rows: Iterable[dict]) -> dict[str, str]:
    """`starts` of the rows of ladder.json, in the order of the recipe."""
    found = starts({f"{row['stage']}-{row['arm']}" for row in rows})
    return {stage: found[stage] for stage in STAGES if stage in found}


def title(name: str) -> str:
    """What a page calls the model of a stage, of "mid-shipped" and so on, or any other."""
    stage = name.removesuffix(f"-{START}")
    return f"shipped {STAGES[stage]}" if stage != name else STAGES.get(name, name)


def _pieces(stages: Sequence[str], begun: Mapping[str, str]) -> list[list[int]]:
    """Places of stages, a list for each chain: a stage that started elsewhere begins another one."""
    found: list[list[int]] = []
    for place, stage in enumerate(stages):
        if not found or stage in begun:
            found.append([])
        found[-1].append(place)
    return found


def protocol(row: dict) -> str:
    """How a row of ladder.json was measured: "sampled" (the ladder's own way), "greedy", "pass"."""
    if row["pass_at_k"] is not None:
        return "pass"
    return "sampled" if row["temperature"] > 0 else "greedy"


@rc_context(plot_style.LOOK)
def ladder(rows: Sequence[dict], paper: bool = True) -> plot_style.Figure:
    """Accuracy (percent) after each stage with 95 % intervals; `rows` are those of ladder.json.

    Lines join the sampled rows (see `protocol`) of arm "main"; other arms are hollow marks beside
    them, with the arm's name. A stage that started from a shipped checkpoint is joined to that, by a broken line, and
    not to the stage before. With `paper`, a smaller panel has the published ladder's shape.
    """
    ratios = {"width_ratios": [2.1, 1]} if paper else None
    figure, grid = plot_style.panels(1, 1 + paper, (10, 4.6), sharey=True, gridspec_kw=ratios)
    axes, ends = grid[0, 0], []
    shown = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    rungs = [row for row in rows if protocol(row) == "sampled"]
    rungs.sort(key=lambda row: shown.index(row["stage"]))
    begun = started(rows)
    step = 0.012 * max(len(shown), 1)  # benchmarks stand side by side, or intervals would overlap
    right = len(shown) - 1 + step  # the names of the lines stand right of every mark
    for place, (name, (colour, shape)) in enumerate(BENCHMARKS.items()):
        own = [row for row in rungs if row["benchmark"] == name]
        places = {}
        for number, arm in enumerate(sorted({row["arm"] for row in own}, key=lambda arm: (arm != "main", arm))):
            mine, main = [row for row in own if row["arm"] == arm], arm == "main"
            y = np.array([100 * row["accuracy"] for row in mine])
            aside = (place - 1) * step + (0 if main else 0.5 if arm == START else 0.1 + 0.12 * number)
            x = np.array([shown.index(row["stage"]) + aside for row in mine])
            places |= {(row["stage"], arm): point for row, *point in zip(mine, x, y, strict=True)}
            # A rounded accuracy may poke out of its own interval by a hair: not below zero.
            low = np.maximum(0, y - [100 * row["ci_low"] for row in mine])
            high = np.maximum(0, [100 * row["ci_high"] for row in mine] - y)
            for piece in _pieces([row["stage"] for row in mine], begun if main else {}):
                axes.errorbar(
                    x[piece], y[piece], yerr=[low[piece], high[piece]], color=colour, marker=shape, capsize=3,
                    elinewidth=1.4, linestyle="-" if main else "none", label=name if main else f"{name}, arm {arm}",
                    markerfacecolor=None if main else plot_style.PAGE,
                )
            if main:
                ends.append((y[-1], f"{name} {y[-1]:.1f} %", colour))
            elif arm != START:
                rung = [row for row in own if (row["stage"], row["arm"]) == (mine[-1]["stage"], "main")]
                below = bool(rung) and rung[0]["accuracy"] > mine[-1]["ci_high"]  # or the name would lie on the line
                axes.annotate(
                    arm, (x[-1], y[-1] - low[-1] if below else y[-1] + high[-1]), xytext=(0, -4 if below else 4),
                    textcoords="offset points", ha="center", va="top" if below else "bottom", color=plot_style.SOFT,
                    fontsize=8.5,
                )
                right = max(right, *x)
        for stage, before in begun.items():
            if (stage, "main") in places and (before, START) in places:
                ends_of = zip(places[before, START], places[stage, "main"], strict=True)
                axes.plot(*ends_of, color=colour, label=f"{name}, from a shipped checkpoint", **plot_style.DASHED)
    plot_style.end_labels(axes, ends, x=right)
    broken = ", broken: from a shipped checkpoint" if begun else ""
    axes.set(title=f"This run{broken}", ylabel="right answers, %", ylim=(0, 104))
    _stage_ticks(axes, shown, begun)
    if not shown:
        plot_style.empty(axes, "nothing measured yet")
    if paper:
        side = grid[0, 1]
        for name, (colour, shape) in BENCHMARKS.items():
            side.plot(range(5), PAPER[name][1], color=colour, marker=shape, alpha=0.75)
        labels = [(v[-1], f"{title} {v[-1]:.1f} %") for title, v in PAPER.values()]
        colours = [colour for colour, _ in BENCHMARKS.values()]
        plot_style.end_labels(side, [(*label, c) for label, c in zip(labels, colours, strict=True)], x=4)
        side.set_title("The paper, 3.8 B parameters")
        _stage_ticks(side, list(STAGES), {})
        side.tick_params(axis="x", labelrotation=35)
        for label in side.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    return figure


@rc_context(plot_style.LOOK)
def chains(chains: Sequence[dict], benchmark: str = "hard") -> plot_style.Figure:
    """Accuracy (percent) of independent chains after each stage; `chains` are the rows of chains.jsonl.

    Thin: each chain. Bold: their mean with its 95 % t interval. Hollow, beside it: the same for the controls; GRPO has
    two. The second panel has the stages after mid-training as paired differences, in points, which the first one's
    scale hides; there GRPO stands beside the control that it is harder to beat, SFT again.
    """
    figure, grid = plot_style.panels(1, 2, (10.5, 4.6), gridspec_kw={"width_ratios": [1.7, 1]})
    axes, colour = grid[0, 0], BENCHMARKS[benchmark][0]
    values = {
        name: np.array([100 * chain["accuracy"][name][benchmark] for chain in chains]) for name in chains[0]["accuracy"]
    }
    names = list(STAGES)
    begun = starts(values)
    pieces = [[names[place] for place in piece] for piece in _pieces(names, begun)]
    for chain in range(len(chains)):
        for piece in pieces:
            where = [names.index(stage) for stage in piece]
            axes.plot(where, [values[stage][chain] for stage in piece], color=colour, alpha=0.3, linewidth=1)
    beside = {"color": plot_style.SOFT, "linestyle": "none", "markerfacecolor": plot_style.PAGE}

    def means(names: Sequence[str], x: Sequence[float], shown: str, marker: str = "s", **look_of: object) -> None:
        reach = [stats.t_quantile(len(chains) - 1) * values[name].std(ddof=1) / len(chains) ** 0.5 for name in names]
        height = [values[name].mean() for name in names]
        axes.errorbar(x, height, yerr=reach, marker=marker, capsize=3, elinewidth=1.4, label=shown, **look_of)

    rungs = [stage for stage in names if f"{stage}-control" in values]
    for piece in pieces:
        means(piece, [names.index(stage) for stage in piece], "mean of the chains, 95 %" if piece is pieces[0] else "",
              color=colour)
    means([f"{stage}-control" for stage in rungs], [names.index(stage) + 0.15 for stage in rungs],
          "stage before, continued at equal compute", **beside)
    means(["grpo-sft"], [names.index("grpo") - 0.15], "Rollout DPO's model, SFT again for as long", "D", **beside)
    axes.set(title=f"{len(chains)} independent chains, {benchmark}", ylabel="right answers, %", ylim=(0, 104))
    axes.legend(loc="lower right")
    _stage_ticks(axes, names, begun)

    side, last = grid[0, 1], [stage for stage in rungs if stage != "mid"]
    before = [f"{begun[stage]}-{START}" if stage in begun else names[names.index(stage) - 1] for stage in last]
    over = "over what it started from" if begun else "over the stage before"
    for shift, shown, others, look_of in (
        (-0.12, over, before, {"color": colour, "linestyle": "none"}),
        (0.12, "over its control (GRPO: SFT again)", ["sft-control", "dpo-control", "grpo-sft"], beside),
    ):
        gains = [stats.paired_t(values[stage], values[other]) for stage, other in zip(last, others, strict=True)]
        reach = [[t.mean - t.low for t in gains], [t.high - t.mean for t in gains]]
        side.errorbar([t.mean for t in gains], [y + shift for y in range(len(last))], xerr=reach, marker="s", capsize=3,
                      elinewidth=1.4, label=shown, **look_of)
    side.axvline(0, color=plot_style.SOFT, linewidth=1)
    side.set_yticks(range(len(last)), [STAGES[stage] for stage in last])
    side.set(title="What a stage brings, points", ylim=(len(last) - 0.5, -0.9))
    side.legend(loc="upper right")
    return figure


def _stage_ticks(axes: Axes, stages: Sequence[str], begun: Mapping[str, str]) -> None:
    said = {stage: f"\nstarts from\nshipped {before}" for stage, before in begun.items()}
    axes.set_xticks(range(len(stages)), [STAGES[stage] + said.get(stage, "") for stage in stages])
    axes.set_xlim(-0.3, max(len(stages) - 1, 1) + 0.3)


@rc_context(plot_style.LOOK)
def funnel(funnel: dict) -> plot_style.Figure:
    """How many rollouts survive each filter, and their verdicts; `funnel` is data/funnel.json.

    {"questions", "rollouts", "steps": [{"name", "kept", "removed", "why"}, ...], "verdicts":
    {verdict: count}}, all counts. What a step removes is drawn pale.
    """
    steps = [{"name": "sampled", "kept": funnel["rollouts"], "removed": 0}, *funnel["steps"]]
    total = max(funnel["rollouts"], 1)
    ratios = {"height_ratios": [len(steps) * 0.8, 1]}
    figure, grid = plot_style.panels(2, 1, (9.5, 1.9 + 0.5 * len(steps)), gridspec_kw=ratios)
    axes, bar = grid[:, 0]
    kept, lost = [s["kept"] for s in steps], [s["removed"] for s in steps]
    axes.barh(range(len(steps)), kept, color=plot_style.BLUE, height=0.62)
    axes.barh(range(len(steps)), lost, left=kept, color=plot_style.BLUE, alpha=0.2, height=0.62)
    for y, s in enumerate(steps):
        why = f"   − {s['removed']:,}: {s['why']}" if s["removed"] else ""
        axes.annotate(
            f"{s['kept']:,}  ({100 * s['kept'] / total:.0f} %){why}", (s["kept"] + s["removed"], y),
            xytext=(8, 0), textcoords="offset points", va="center", annotation_clip=False,
        )
    axes.set_yticks(range(len(steps)), [s["name"] for s in steps])
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
    return figure


@rc_context(plot_style.LOOK)
def lengths(
    rollouts: Sequence[dict], by: str = "verdict", things: str = "answers", label: str = "tokens in the answer"
) -> plot_style.Figure:
    """How long answers, or other `things`, are (tokens): a histogram for each value of the field `by`, on one scale.

    `rollouts` are rows with "tokens" and `by` ("verdict", "style", ...); the dash is the median.
    """
    groups: dict[str, list[int]] = {}
    for row in rollouts:
        groups.setdefault(str(row[by]), []).append(row["tokens"])
    names = [v for v in VERDICTS if v in groups] + sorted(set(groups) - set(VERDICTS))
    tall = max(len(names), 1)
    figure, grid = plot_style.panels(tall, 1, (9, 1 + 1.25 * tall), sharex=True)
    if not names:
        plot_style.empty(grid[0, 0], "no rollouts")
        return figure
    edges = np.histogram_bin_edges([row["tokens"] for row in rollouts], bins=40)
    for index, (axes, name) in enumerate(zip(grid[:, 0], names, strict=True)):
        colour = VERDICTS.get(name, plot_style.SERIES[index % len(plot_style.SERIES)])
        axes.hist(groups[name], bins=edges, color=colour)
        middle = float(np.median(groups[name]))
        axes.axvline(middle, color=plot_style.INK, **plot_style.DASHED)
        axes.set_title(f"{name}: {len(groups[name]):,} {things}, median {middle:.0f} tokens")
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    grid[-1, 0].set_xlabel(label)
    return figure


@rc_context(plot_style.LOOK)
def loss_curve(metrics: Sequence[dict], title: str) -> plot_style.Figure:
    """Training and validation loss (nats a token) by step; marks the best point and the stop.

    `metrics` are rows of metrics.jsonl: {"step", "loss"?, "eval_loss"?, ...}.
    """
    figure, ((axes,),) = plot_style.panels(1, 1, (8, 3.6))
    train, validation = plot_style.series(metrics, "loss"), plot_style.series(metrics, "eval_loss")
    axes.set_title(title)
    if not train[0] + validation[0]:
        plot_style.empty(axes, "no loss was logged")
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
    axes.set(xlabel="step", ylabel="loss, nats a token", yscale="log")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(_one_two_five)  # powers of ten would be formulas, which an SVG page cannot show
    axes.margins(y=0.16)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _one_two_five(value: float, _) -> str:
    """Ticks of a logarithmic axis in plain numbers, at 1, 2 and 5."""
    return f"{value:g}" if f"{value:e}"[0] in "125" else ""


@rc_context(plot_style.LOOK)
def dpo_curves(metrics: Sequence[dict]) -> plot_style.Figure:
    """Rollout DPO: log-probabilities of both sides, reward margin, share of pairs set in order.

    `metrics` are rows of dpo/metrics.jsonl with TRL's names: "logps/chosen" and "logps/rejected"
    (nats a whole answer), "rewards/chosen", "rewards/rejected", "rewards/accuracies" (0 to 1).
    """
    rewards = (plot_style.series(metrics, f"rewards/{side}") for side in _SIDES)
    chosen, rejected = (dict(zip(*points, strict=True)) for points in rewards)
    steps = [step for step in chosen if step in rejected]
    margin = steps, [chosen[step] - rejected[step] for step in steps]
    figure, grid = plot_style.panels(1, 3, (10, 3.3))
    for side, colour in _SIDES.items():
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
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))  # a lab run takes three steps
        if not axes.lines:
            plot_style.empty(axes, "not logged")
    return figure


_SIDES = {"chosen": plot_style.GREEN, "rejected": plot_style.RED}


def _small(axes: Axes, points: tuple[list, list], colour: str, title: str) -> None:
    axes.set_title(title)
    if points[0]:
        plot_style.curve(axes, *points, colour, title)
    if title.endswith("(share)"):
        axes.set_ylim(0, 1.04)


@rc_context(plot_style.LOOK)
def rl_curves(metrics: Sequence[dict]) -> plot_style.Figure:
    """GRPO in six small pictures; `metrics` are rows of grpo/metrics.jsonl.

    "reward" (-1 to 1), "zero_variance_share" and "kept_share" (0 to 1), "mean_length" (tokens),
    "entropy" (nats a token), "temperature".
    """
    pictures = (
        ("reward", "Mean reward, −1 to 1", plot_style.GREEN),
        ("zero_variance_share", "Zero-variance groups (share)", plot_style.RED),
        ("kept_share", "Samples kept (share)", plot_style.SKY),
        ("mean_length", "Mean length (tokens)", plot_style.BLUE),
        ("entropy", "Entropy (nats a token)", plot_style.PURPLE),
    )
    figure, grid = plot_style.panels(2, 3, (10, 5.2), sharex=True)
    for axes, (key, title, colour) in zip(grid.flat, pictures, strict=False):
        _small(axes, plot_style.series(metrics, key), colour, title)
    heat = grid[1, 2]  # set, not measured: never smoothed
    heat.plot(*plot_style.series(metrics, "temperature"), color=plot_style.ORANGE)
    heat.set(title="Sampling temperature", ylim=(0, 1.1))
    for axes in grid.flat:
        if not any(len(line.get_xdata()) for line in axes.lines):
            plot_style.empty(axes, "not logged")
    for axes in grid[1]:
        axes.set_xlabel("step")
    return figure


@rc_context(plot_style.LOOK)
def packing(rows: Sequence[Sequence[int]], row_length: int) -> plot_style.Figure:
    """A picture of a batch: documents as coloured blocks, padding grey.

    `rows[i]` are the document lengths (tokens) in row i; a row holds `row_length` tokens. Of more
    than 24 rows the first 24 are drawn; the share in the title counts all of them.
    Raises ValueError when a row is over-full.
    """
    if any(sum(row) > row_length for row in rows):
        raise ValueError(f"a row holds more than {row_length} tokens")
    used = 100 * sum(map(sum, rows)) / max(len(rows) * row_length, 1)
    drawn, colour = list(rows[:24]), 0
    figure, ((axes,),) = plot_style.panels(1, 1, (9, 1.3 + 0.24 * max(len(drawn), 2)))
    for y, row in enumerate(drawn):
        axes.barh(y, row_length, height=0.78, color=plot_style.LINE)  # what stays in sight is padding
        start = 0
        for length in row:
            block = plot_style.SERIES[colour % len(plot_style.SERIES)]
            axes.barh(y, length, left=start, height=0.78, color=block, edgecolor=plot_style.PAGE)
            start, colour = start + length, colour + 1
    more = f" (the first {len(drawn)} drawn)" if len(rows) > len(drawn) else ""
    axes.set_title(f"{sum(map(len, rows))} documents in {len(rows)} rows{more}: {used:.0f} % used")
    axes.set(xlim=(0, row_length), ylim=(len(drawn) - 0.4, -0.6), yticks=[])
    axes.set_xlabel("tokens (grey: padding)")
    plot_style.bare(axes)
    return figure


@rc_context(plot_style.LOOK)
def temperature_schedule(fn: Callable[[int, int], float], steps: int) -> plot_style.Figure:
    """The sampling temperature `fn(step, steps)` over steps 0 .. steps-1; marks half-way."""
    figure, ((axes,),) = plot_style.panels(1, 1, (7, 3))
    y = [fn(step, steps) for step in range(steps)]
    axes.plot(range(steps), y, color=plot_style.ORANGE)
    axes.plot([0, steps - 1], [y[0], y[-1]], "o", color=plot_style.ORANGE, clip_on=False)
    plot_style.mark(axes, steps / 2, "half-way")
    axes.set(xlabel="step", title="Sampling temperature", ylim=(0, max(y) * 1.15))
    return figure
