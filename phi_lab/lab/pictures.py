"""Small figures that only the notebooks need, in the style of `phi_lab.report.figures`: pure functions of rows.

    python -c "from phi_lab.lab.pictures import verdicts; verdicts({'mid': ['right', 'wrong']}).savefig('verdicts.png')"
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from matplotlib import rc_context
from matplotlib.axes import Axes

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


@rc_context(plot_style.RC_PARAMS)
def attention(tokens: Sequence[str], weights: Sequence[Sequence[float]], places: Sequence[int]) -> plot_style.Figure:
    """Where one head looks: a row for each of `places`, a cell for each token, shaded by its share of the attention.

    weights: (tokens, tokens), of the token in a row to those in the columns, 0 to 1. The row of a place is that of the
    token before it, from which the model writes it.
    """
    names = list(map(_short, tokens))
    lefts = [0.0, *accumulate(map(_width, names))]
    figure, ((axes,),) = plot_style.panels(1, 1, (9.5, 0.9 + 0.5 * len(places)))
    lines = []
    for y, place in enumerate(places):
        row = weights[place - 1]
        best = max(range(place), key=lambda other: row[other])
        lines.append(f"{names[place]} at {place}: {row[best]:.2f} on {names[best]} at {best}")
        for x, name in enumerate(names):
            share = row[x] if x < place else 0.0
            _cell(axes, y, lefts[x], name, plot_style.BLUE, share, f"{100 * share:.0f}" if share >= 0.2 else "",
                  faint=x > place)
        axes.barh(y, _width(names[place]) - 0.06, left=lefts[place], height=0.86, color="none",
                  edgecolor=plot_style.RED, linewidth=1.8)
    _only_rows(axes, lefts[-1], [f"writing {names[place]}" for place in places])
    axes.set_title("Framed: the token that is written. Blue: where the head looks, with its share in %")
    figure.alt = f"Attention over {len(tokens)} tokens. Writing {'; '.join(lines)}."
    return figure


@rc_context(plot_style.RC_PARAMS)
def token_heat(sides: Mapping[str, Sequence[tuple[str, float]]], title: str, width: float = 44) -> plot_style.Figure:
    """Answers token by token, each cell shaded by its value in nats; `sides` maps a name to (token, value) pairs.

    A value below 0 is orange, one above 0 blue, and one of at least half a nat is written under its token.
    """
    strongest = max([1.0, *(abs(value) for cells in sides.values() for _, value in cells)])
    rows: list[tuple[str, list]] = []
    for name, cells in sides.items():
        rows.append((name, []))
        left = 0.0
        for token, value in cells:
            if left + _width(_short(token)) > width:
                rows.append(("", []))
                left = 0.0
            rows[-1][1].append((left, _short(token), value))
            left += _width(_short(token))
    figure, ((axes,),) = plot_style.panels(1, 1, (9.5, 0.7 + 0.45 * len(rows)))
    for y, (_, placed) in enumerate(rows):
        for left, token, value in placed:
            colour = plot_style.ORANGE if value < 0 else plot_style.BLUE
            _cell(axes, y, left, token, colour, abs(value) / strongest, f"{value:.1f}" if abs(value) >= 0.5 else "")
    _only_rows(axes, width, [name for name, _ in rows])
    axes.set_title(title)
    words = []
    for name, cells in sides.items():
        token, value = min(cells, key=lambda cell: cell[1])
        words.append(f"{name}: {len(cells)} tokens, {sum(value for _, value in cells):.1f} nats in all, lowest "
                     f"{value:.1f} at {_short(token)}")
    figure.alt = f"{title}. {'; '.join(words)}."
    return figure


def _short(token: str) -> str:
    """A token as it is written in a cell; <|user|> becomes user."""
    return re.sub(r"[<>|]", "", token) if len(token) > 1 else token


def _width(name: str) -> float:
    return max(1.0, 0.3 + 0.5 * len(name))


def _cell(axes: Axes, y: int, left: float, name: str, colour: str, strength: float, number: str, *,
          faint: bool = False) -> None:
    """One token: its text over a ground of `strength`, 0 to 1, and a number below it."""
    axes.barh(y, _width(name) - 0.06, left=left, height=0.86, color=colour, alpha=strength)
    dark = colour == plot_style.BLUE and strength > 0.6
    ink = plot_style.LINE if faint else plot_style.PAGE if dark else plot_style.INK
    middle = left + _width(name) / 2
    axes.text(middle, y - 0.12, name, ha="center", va="center", color=ink, fontsize=9)
    axes.text(middle, y + 0.27, number, ha="center", va="center", color=ink, fontsize=6.5)


def _only_rows(axes: Axes, width: float, names: Sequence[str]) -> None:
    axes.set(xlim=(0, width), ylim=(len(names) - 0.4, -0.6), xticks=[], yticks=range(len(names)), yticklabels=names)
    plot_style.bare(axes)


@rc_context(plot_style.RC_PARAMS)
def temperatures(outcomes: Mapping[float, Mapping[str, float]]) -> plot_style.Figure:
    """What sampling at each temperature gave: "right" and "mixed" (shares, 0 to 1) and "tokens" (the mean)."""
    names = {"right": "right answers, %", "mixed": "groups with both, %", "tokens": "tokens per answer, mean"}
    figure, grid = plot_style.panels(1, 3, (9.5, 2.8))
    words = []
    for axes, (key, title), colour in zip(grid[0], names.items(), plot_style.SERIES, strict=False):
        values = [row[key] * (1 if key == "tokens" else 100) for row in outcomes.values()]
        axes.plot(list(outcomes), values, color=colour, marker="o")
        axes.set(xlabel="temperature", ylim=(0, 1.15 * max([1.0, *values])), xticks=list(outcomes))
        axes.set_title(title)
        pairs = zip(outcomes, values, strict=True)
        words.append(f"{title}: " + ", ".join(f"{value:.0f} at {heat:g}" for heat, value in pairs))
    figure.alt = f"Sampled answers by temperature. {'; '.join(words)}."
    return figure
