"""One figure an experiment: its arms on top, then what it is about, and its contrasts below, for a narrow page.

Pure functions of the rows of an experiment; each writes its text for who cannot see it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from phi_lab.report import figures_variance, plot_style
from phi_lab.report.contrasts import Contrast, Tested, accuracy, by_seed, compare, mean_interval, points
from phi_lab.report.plot_style import BLUE, GREEN, ORANGE, PURPLE, RED, SOFT

Arms = Mapping[str, str]
Seeds = Mapping[int, Mapping[str, dict]]  # rows by seed and arm
MARKS = {"sampled": ("T 0.6", RED, "s"), "greedy": ("greedy", BLUE, "o"), "pass": ("pass@8", GREEN, "^")}
PROBES = {"own right": (GREEN, "o"), "own wrong": (RED, "o"), "teacher right": (GREEN, "^"),
          "teacher wrong": (RED, "^")}
SIZES = ("128", "512", "2048", "all")


@rc_context(plot_style.RC_PARAMS)
def mid_training(rows: Sequence[dict], arms: Arms, contrasts: Sequence[Contrast]) -> plot_style.Figure:
    """Accuracy (percent) against the size of the set, without and after mid-training, on `hard` and on `easy`; other
    arms as marks; and the contrasts.
    """
    figure, grid = plot_style.panels(3, 1, (8, 13.5))
    seeds, words = by_seed(rows, list(arms)), []
    for axes, benchmark in zip(grid[:2, 0], ("hard", "easy"), strict=True):
        for start, (colour, marker) in zip(("base", "mid"), ((ORANGE, "o"), (BLUE, "s")), strict=True):
            means = _means(seeds, [start, *(f"{start}-{size}" for size in SIZES)], benchmark)
            title = "without mid-training" if start == "base" else "after mid-training"
            _line(axes, range(len(means)), means, color=colour, marker=marker, label=title)
            words.append(f"{benchmark}, {title}: {_values(means)}")
        others = [name for name in arms if "-" in name and name.partition("-")[2] not in SIZES]  # all from the base
        means = _means(seeds, others, benchmark)
        for number, (mean, half) in enumerate(means.values()):
            axes.errorbar([5 + 0.45 * number], [mean], yerr=[half], color=SOFT, marker="D",
                          markerfacecolor=plot_style.PAGE)
        words.append(f"{benchmark}, others: {_values(means)}")
        axes.set_xticks([*range(5), *(5 + 0.45 * number for number in range(len(others)))],
                        ["none", *SIZES, *(name.removeprefix("base-") for name in others)], rotation=40, ha="right")
        axes.set(title=f"{benchmark}, T 0.6", ylabel="right answers, %", xlabel="answers in SFT", ylim=(-2, 104))
    grid[0, 0].legend(loc="upper left")
    return _finish(figure, grid[2, 0], rows, contrasts, "Right answers after SFT, percent", words)


@rc_context(plot_style.RC_PARAMS)
def one_batch(rows: Sequence[dict], arms: Arms, contrasts: Sequence[Contrast]) -> plot_style.Figure:
    """Each use of the batch on `hard`; what it made of the log-probabilities of the same right and wrong answers; the
    margins through the training of the preference arms; and the contrasts.
    """
    figure, grid = plot_style.panels(4, 1, (8, 18), gridspec_kw={"height_ratios": [1.1, 1, 0.8, 1]})
    seeds = by_seed(rows, list(arms))
    words = [*_arms_panel(grid[0, 0], seeds, arms), *_probe_panel(grid[1, 0], seeds, arms),
             *_margins_panel(grid[2, 0], seeds, arms)]
    return _finish(figure, grid[3, 0], rows, contrasts, "Right answers on hard, percent", words)


@rc_context(plot_style.RC_PARAMS)
def rl_devices(rows: Sequence[dict], arms: Arms, contrasts: Sequence[Contrast]) -> plot_style.Figure:
    """Each arm on `hard`; diversity of its answers against accuracy; the entropy of its training; the contrasts."""
    figure, grid = plot_style.panels(4, 1, (8, 17.5), gridspec_kw={"height_ratios": [1.15, 1, 0.8, 0.95]})
    seeds = by_seed(rows, list(arms))
    words = [*_arms_panel(grid[0, 0], seeds, arms), *_diversity_panel(grid[1, 0], seeds, arms),
             *_entropy_panel(grid[2, 0], seeds, arms)]
    return _finish(figure, grid[3, 0], rows, contrasts, "Right answers on hard, percent", words)


FIGURES: dict[str, Callable[[Sequence[dict], Arms, Sequence], plot_style.Figure]] = {
    "mid_training": mid_training, "one_batch": one_batch, "rl_devices": rl_devices,
    "variance": figures_variance.components, "variance_bases": figures_variance.components}


def save(name: str, rows: Sequence[dict], arms: Arms, claims: Sequence, path: Path) -> plot_style.Figure:
    """Save an experiment's figure as SVG with its text in it: equal rows give equal bytes. claims: its contrasts or
    nests.
    """
    figure = FIGURES[name](rows, arms, claims)
    with rc_context({"svg.hashsalt": "phi-lab"}):
        figure.savefig(path, metadata={"Date": None, "Description": figure.alt})
    return figure


# ------------------------------------------------------------------ panels


def _means(
    seeds: Seeds, names: Sequence[str], benchmark: str = "hard", how: str = "sampled"
) -> dict[str, tuple[float, float]]:
    """Mean and half its interval, in percent, of the arms that were measured so."""
    found = {}
    for name in names:
        values = [accuracy(of_seed[name], benchmark, how) for of_seed in seeds.values()]
        if values and None not in values:
            found[name] = mean_interval([100 * value for value in values if value is not None])
    return found


def _values(means: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {mean:.1f}" for name, (mean, _) in means.items())


def _line(axes: Axes, x: Sequence[float], means: Mapping[str, tuple[float, float]], **style: object) -> None:
    axes.errorbar(x, [mean for mean, _ in means.values()], yerr=[half for _, half in means.values()], capsize=3,
                  elinewidth=1.4, **style)


def _arms_panel(axes: Axes, seeds: Seeds, arms: Arms) -> list[str]:
    """Every arm a line, by each protocol; what it shows in words."""
    words = []
    for number, (how, (title, colour, marker)) in enumerate(MARKS.items()):
        means = _means(seeds, list(arms), "hard", how)
        y = [list(arms).index(name) + 0.2 * (number - 1) for name in means]
        axes.errorbar([mean for mean, _ in means.values()], y, xerr=[half for _, half in means.values()], color=colour,
                      marker=marker, linestyle="none", elinewidth=1.2, markersize=5, label=title)
        words.append(f"{title}: {_values(means) or 'not measured'}")
    axes.set_yticks(range(len(arms)), list(arms))
    axes.set(title=f"hard, {len(seeds)} seeds, 95 % intervals", xlabel="right answers, %",
             ylim=(len(arms) - 0.5, -0.5))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)  # above, where no mark can be
    return words


def _probe_panel(axes: Axes, seeds: Seeds, arms: Arms) -> list[str]:
    """By how much each trained arm moved the mean log-probability of the same answers, from the student's (nats)."""
    probed = [name for name in arms if all(of_seed[name]["notes"].get("probe") for of_seed in seeds.values())]
    trained = [name for name in probed if any(of[name]["model"] != of[name]["start"] for of in seeds.values())]
    if not trained:
        plot_style.empty(axes, "not probed")
        return []
    words = []
    for number, (kind, (colour, marker)) in enumerate(PROBES.items()):
        changes = [np.mean([of[name]["notes"]["probe"][kind] - of["start"]["notes"]["probe"][kind]
                            for of in seeds.values()]) for name in trained]
        axes.plot(changes, [y + 0.15 * (number - 1.5) for y in range(len(trained))], marker, color=colour, label=kind,
                  markerfacecolor=colour if kind.startswith("own") else "none")
        words.append(f"log-probability of {kind} answers: " + ", ".join(
            f"{name} {change:+.1f}" for name, change in zip(trained, changes, strict=True)) + " nats")
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.set_yticks(range(len(trained)), trained)
    axes.set(title="Log-probability of the same answers", xlabel="change, nats an answer",
             ylim=(len(trained) - 0.5, -0.5))
    axes.legend(loc="lower left", fontsize=8)
    return words


def _diversity_panel(axes: Axes, seeds: Seeds, arms: Arms) -> list[str]:
    """Each arm's share of different answers to a problem against its accuracy, with its name at the right edge."""
    points_of, words = {}, []
    for name in arms:
        found = [(of_seed[name]["diversity"], accuracy(of_seed[name]) or 0.0) for of_seed in seeds.values()]
        points_of[name] = [100 * float(value) for value in np.mean(found, axis=0)]
        words.append(f"{name}: {points_of[name][0]:.0f} % of a problem's answers differ")
    axes.plot(*np.transpose(list(points_of.values())), "o", color=BLUE, linestyle="none")
    low, high = axes.get_ylim()
    heights = plot_style.spread([y for _, y in points_of.values()], (high - low) / 17, high)
    for (name, point), height in zip(points_of.items(), heights, strict=True):
        axes.annotate(name, point, (1.03, height), textcoords=axes.get_yaxis_transform(), va="center", fontsize=8,
                      annotation_clip=False, arrowprops={"arrowstyle": "-", "color": plot_style.LINE, "linewidth": 0.8})
    axes.set(title="Diversity and accuracy of sampled answers", xlabel="different answers to a problem, %",
             ylabel="right answers, %")
    return words


def _entropy_panel(axes: Axes, seeds: Seeds, arms: Arms) -> list[str]:
    """The entropy (nats a token) with which each arm's training began and ended, a line an arm."""
    changes = {}
    for name in arms:
        found = [of_seed[name]["notes"].get("entropy") for of_seed in seeds.values()]
        if all(found):
            changes[name] = np.mean(found, axis=0)
    if not changes:
        plot_style.empty(axes, "no entropies")
        return []
    first, last = np.transpose(list(changes.values()))
    axes.hlines(range(len(changes)), first, last, color=PURPLE, linewidth=1.4)
    axes.plot(first, range(len(changes)), "o", color=PURPLE, markerfacecolor=plot_style.PAGE, label="first three steps")
    axes.plot(last, range(len(changes)), "o", color=PURPLE, label="last three steps")
    axes.set_yticks(range(len(changes)), list(changes))
    axes.set(title="Entropy in training", ylim=(len(changes) - 0.5, -0.5), xlim=(0, None),
             xlabel="nats a token, of the answers that are trained on, at the temperature of the step")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8)
    return [f"entropy of {name} {before:.3f} to {after:.3f} nats" for name, (before, after) in changes.items()]


def _margins_panel(axes: Axes, seeds: Seeds, arms: Arms) -> list[str]:
    """DPO's margin of each preference arm over its training, a running mean of ten logged steps."""
    words = []
    with_curves = [name for name in arms if all(of_seed[name]["notes"].get("curves") for of_seed in seeds.values())]
    for name, colour in zip(with_curves, plot_style.SERIES, strict=False):
        curves = [np.array(of_seed[name]["notes"]["curves"]) for of_seed in seeds.values()]
        length = min(map(len, curves))  # seeds differ in pairs, and so in steps
        steps, margins = np.mean([curve[:length] for curve in curves], axis=0)[:, [0, 3]].T
        width = min(10, length)
        smooth = np.convolve(margins, np.ones(width) / width, "valid")
        axes.plot(steps[width - 1 :], smooth, color=colour, label=name)
        words.append(f"{name}: margin at the end {smooth[-1]:.2f}")
    if not with_curves:
        plot_style.empty(axes, "no curves")
    else:
        axes.legend(loc="upper right", fontsize=7.5)
    axes.set(title="Margin of a step's pairs, running mean", xlabel="step", ylabel="β times nats")
    return words


def _finish(
    figure: plot_style.Figure, axes: Axes, rows: Sequence[dict], contrasts: Sequence[Contrast], title: str,
    words: Sequence[str],
) -> plot_style.Figure:
    """Draw the contrasts, and write the figure's text."""
    tested = compare(rows, contrasts)
    for y, one in enumerate(tested):
        mean, low, high = (100 * value for value in one.effect[:3])
        colour = SOFT if one.verdict == "no difference shown" else GREEN if one.verdict == "supported" else RED
        axes.errorbar([mean], [y], xerr=[[mean - low], [high - mean]], color=colour, marker="s", capsize=3)
        reach = 0.0 if one.at_floor else 100 * one.detectable
        axes.plot([-reach, reach], [y + 0.28] * 2, color=plot_style.LINE, linewidth=3, solid_capstyle="butt")
    axes.axvline(0, color=SOFT, linewidth=1)
    # Grey may end beyond the edge.
    widest = max(1.0, 115 * max(abs(value) for one in tested for value in one.effect[1:3]))
    axes.set_yticks(range(len(tested)), [_label(one) for one in tested], fontsize=8)
    axes.set(title="Differences, points", xlim=(-widest, widest), ylim=(len(tested) - 0.4, -0.6),
             xlabel="95 % intervals; grey: effects too small to be seen with 80 % power")
    found = "; ".join(f"{_label(one)} {points(one.effect)}, {one.verdict_words}, detectable {one.detectable_words}"
                      for one in tested)
    figure.alt = f"{title}, means of {tested[0].seeds} seeds. {'; '.join(words)}. Differences in points: {found}."
    return figure


def _label(one: Tested) -> str:
    benchmark = "" if one.contrast.benchmark == "hard" else f", {one.contrast.benchmark}"
    return f"{one.contrast.name} − {one.contrast.against}{benchmark}"
