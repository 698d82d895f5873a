"""Figures of nested scores: every score in its chain, what each level adds, and the smallest difference that is seen.

Pure functions of the rows of an experiment; each writes its text for who cannot see it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from phi_lab.report import plot_style, power, spread
from phi_lab.report.components import Level, Nest, cells, level_words, levels
from phi_lab.report.plot_style import BLUE, GREEN, ORANGE, SOFT
from phi_lab.report.spread import Spread

COLOURS = (BLUE, ORANGE, GREEN)  # of the levels, from above
COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)


@rc_context(plot_style.RC_PARAMS)
def components(rows: Sequence[dict], arms: Mapping[str, str], nests: Sequence[Nest]) -> plot_style.Figure:
    """The scores of the first nest, a column for each top unit; the standard deviation of each level of each nest with
    its interval, in points; and, where these are chains, the smallest difference that n seeds show.
    """
    of_chains = nests[0].of_chains
    figure, grid = plot_style.panels(2 + of_chains, 1, (8, 9.5 + 4.7 * of_chains))
    found = levels(rows, nests)
    words = [_scores(grid[0, 0], rows, nests[0], arms), _levels(grid[1, 0], found)]
    if of_chains:
        here = spread.measured(rows, nests[0])
        words.append(smallest(grid[2, 0], here, here.problems, here.samples))
    figure.alt = f"Components of variance, means of {found[0].units} {found[0].name}s. {' '.join(words)}"
    return figure


@rc_context(plot_style.RC_PARAMS)
def seen(scores: Spread, seeds: int, difference: float, problems: int, samples: int) -> plot_style.Figure:
    """The smallest difference that is seen against the number of seeds, on so many problems with so many answers, and
    where `seeds` and `difference` (a share) stand.
    """
    figure, ((axes,),) = plot_style.panels(1, 1, (7.5, 4.6))
    words, variances = smallest(axes, scores, problems, samples), scores.variances(problems, samples)
    axes.plot([seeds], [100 * difference], marker="*", markersize=16, color=plot_style.RED, linestyle="none", zorder=4)
    chances = {name: power.power_of(difference, variances, seeds, paired)
               for name, paired in (("paired", True), ("unpaired", False))}
    figure.alt = (f"{words} A difference of {100 * difference:.1f} points with {seeds} seeds of each recipe is seen in "
                  + " and ".join(f"{100 * chance:.0f} % ({name})" for name, chance in chances.items()) + ".")
    return figure


def smallest(axes: Axes, scores: Spread, problems: int, samples: int) -> str:
    """Draw the smallest difference, in points, that n seeds of each recipe show, with its interval; what is drawn, in
    words.
    """
    words, variances = [], scores.variances(problems, samples)
    for (name, paired), colour, marker in zip((("paired", True), ("unpaired", False)), (BLUE, ORANGE), "so",
                                              strict=True):
        values = [100 * power.detectable(variances, count, paired) for count in COUNTS]
        axes.plot(COUNTS, values, color=colour, marker=marker, label=name)
        low, high = (np.multiply(values, factor**0.5) for factor in scores.factors(paired, problems, samples))
        axes.fill_between(COUNTS, low, high, color=colour, alpha=0.15, linewidth=0)
        words.append(f"{name}, " + ", ".join(f"{value:.1f} with {count}" for count, value in
                                             zip(COUNTS, values, strict=True) if count in (3, 6, 12, 24)))
    axes.set(xscale="log", yscale="log", title="The smallest difference that is seen", ylabel="points, 80 % power, 5 %",
             xlabel="seeds of each recipe; bands: 95 % of the variance")
    axes.set_xticks(COUNTS, map(str, COUNTS))
    low, high = axes.get_ylim()
    ticks = [one for one in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low <= one <= high]
    axes.set_yticks(ticks, [f"{one:g}" for one in ticks])
    axes.minorticks_off()
    axes.legend(loc="upper right")
    return f"The smallest difference seen, points: {'; '.join(words)} seeds of each recipe."


def _scores(axes: Axes, rows: Sequence[dict], nest: Nest, arms: Mapping[str, str]) -> str:
    """Every score of a nest: top units by their mean, a marker for each training, joined evaluations."""
    scores = 100 * cells(rows, nest)[0]
    order = np.argsort(scores.mean((1, 2)))
    for x, unit in enumerate(scores[order]):
        for number, training in enumerate(unit):
            place = x + 0.3 * (number / (len(unit) - 1) - 0.5)
            axes.plot([place] * len(training), training, color=COLOURS[number % 3], marker="os^"[number % 3],
                      markersize=5, linewidth=1.4, label=None if x else arms[nest.arms[number][0]])
        axes.plot([x - 0.35, x + 0.35], [unit.mean()] * 2, color=SOFT, linewidth=1)
    axes.legend(loc="lower right")
    top, middle, bottom = nest.levels
    axes.set(title=f"Two {middle}s a {top}, {scores.shape[2]} {bottom}s each ({nest.title})", xticks=[],
             xlabel=f"{len(scores)} {top}s, by their mean", ylabel="hard, right answers, %")
    return (f"Means of the {top}s on hard after {nest.title}, percent: "
            f"{', '.join(f'{unit.mean():.1f}' for unit in scores[order])}.")


def _levels(axes: Axes, found: Sequence[Level]) -> str:
    """The standard deviation of each level with its interval."""
    for y, one in enumerate(found):
        middle, low, high = (100 * value for value in (one.sd, one.sd_low, one.sd_high))
        middle = min(max(middle, low), high)
        axes.errorbar([middle], [y], xerr=[[middle - low], [high - middle]], capsize=3, marker="s",
                      color=COLOURS[one.nest.levels.index(one.name)])
        if one.detectable is not None:
            axes.plot([0, 100 * one.detectable], [y + 0.3] * 2, color=plot_style.LINE, linewidth=3,
                      solid_capstyle="butt")
    axes.set_yticks(range(len(found)), [f"{one.nest.title}, {one.name}" for one in found], fontsize=9)
    axes.set(title="What each level adds to a score", ylim=(len(found) - 0.4, -0.6),
             xlabel="standard deviation, points, 95 %; grey: too small to be seen")
    axes.set_xlim(left=0)
    return "Standard deviations, points: " + "; ".join(
        f"{one.nest.title}, {one.name} {level_words(one)}, {100 * one.share:.0f} % of the variance"
        for one in found) + "."
