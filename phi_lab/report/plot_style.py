"""The style of every figure: colours, matplotlib settings, a Figure that Jupyter shows sharply, and SVG for pages.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; a series also has its own marker, panel or
label, so that nothing depends on colour alone. Nothing here touches pyplot's global state, and no label is read as TeX,
since text from a run folder may hold any character.

Try it:  python -c "from phi_lab.report.plot_style import panels; print(panels(1, 2, (6, 3)))"
"""

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import rc_context
from matplotlib.axes import Axes

INK, SOFT, LINE, PAGE = "#1c2430", "#5b6675", "#d5dbe3", "#fefefe"
BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
RED, PURPLE, SKY = "#d55e00", "#cc79a7", "#56b4e9"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
SMOOTHED = 30  # points of a curve, from which on its running mean is drawn
BENCHMARKS = {"easy": (BLUE, "o"), "hard": (RED, "s"), "transfer": (GREEN, "^")}
VERDICTS = {
    "right": GREEN, "wrong": RED, "unfinished": ORANGE, "unparsed": PURPLE, "timeout": SOFT,
}
DASHED = {"linewidth": 1.2, "linestyle": (0, (4, 2))}
RC_PARAMS = {
    "font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "text.parse_math": False,
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlecolor": INK, "axes.titlepad": 10, "axes.labelcolor": SOFT, "axes.edgecolor": LINE,
    "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
    "grid.color": LINE, "grid.linewidth": 0.8,
    "xtick.color": LINE, "ytick.color": LINE, "xtick.labelcolor": SOFT, "ytick.labelcolor": SOFT,
    "lines.linewidth": 2.0, "lines.markersize": 6.5, "legend.frameon": False,
    "figure.facecolor": PAGE, "savefig.facecolor": PAGE,
}


class Figure(mpl.Figure):
    """A matplotlib Figure that Jupyter shows sharply, with or without `%matplotlib inline`, on a light ground of its
    own, so that it can be read in a dark theme too.

    alt: what the figure shows in a sentence or two, with its numbers, for who cannot see it. Each figure function
    writes it. JupyterLab gives an image of a page no text, so a live page gets an HTML image with its text, too; a
    committed notebook has the image alone, with the text in its metadata, because GitHub shows no HTML image.
    """

    alt = ""

    def _repr_html_(self) -> str:
        image, size = self._repr_png_()
        source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        return (f'<img alt="{html.escape(self.alt)}" width="{size["width"]}" height="{size["height"]}" '
                f'style="background:{PAGE}" src="{source}">')

    def _repr_png_(self) -> tuple[bytes, dict[str, int | str]]:
        image = io.BytesIO()
        self.savefig(image, format="png", dpi=160)
        width, height = self.get_size_inches() * 80  # shown at half size: sharp on dense screens
        return image.getvalue(), {"width": int(width), "height": int(height), "alt": self.alt,
                                  "needs_background": "light"}


def to_svg(figure: mpl.Figure, name: str) -> str:
    """The figure as an `<svg>` element for a page: text stays text, and equal figures give equal bytes.

    The colours INK, SOFT, LINE and PAGE become the CSS variables --ink, --soft, --line and --page, so that a figure
    follows the page's light or dark theme. `name` makes the ids inside unique on the page.
    """
    image = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "phi-lab"}):
        figure.savefig(image, format="svg", transparent=True, metadata={"Date": None})
    svg = image.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for variable, colour in {"ink": INK, "soft": SOFT, "line": LINE, "page": PAGE}.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def panels(rows: int, columns: int, size: tuple[float, float], **options) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches and its rows x columns axes; `options` go to Figure.subplots."""
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.06)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def bare(axes: Axes) -> None:
    """Remove grid, spines and tick marks, for bars that carry their own labels."""
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def empty(axes: Axes, message: str) -> None:
    """Write in the middle of the axes why nothing is drawn there."""
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, message, transform=axes.transAxes, ha="center", va="center", color=SOFT)


def mark(axes: Axes, x: float, text: str, left: bool = False) -> None:
    """A dashed vertical line at x with a label at its top, on the right or the left side."""
    axes.axvline(x, color=SOFT, **DASHED)
    axes.annotate(
        text, (x, 1), xycoords=("data", "axes fraction"), xytext=(-6 if left else 6, -2),
        textcoords="offset points", ha="right" if left else "left", va="top", color=SOFT,
    )


def series(rows: Iterable[dict], key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the rows that have a finite number under `key`."""
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    return [step for step, _ in points], [value for _, value in points]


def curve(axes: Axes, steps: Sequence[float], values: Sequence[float], colour: str, label: str):
    """A line through the values; from `SMOOTHED` points on their running mean, with the raw values pale behind it."""
    if len(values) >= SMOOTHED:
        axes.plot(steps, values, color=colour, alpha=0.28, linewidth=1)
        width = max(3, len(values) // 15)
        padded = np.pad(np.asarray(values, float), (width // 2, width - 1 - width // 2), "edge")
        values = list(np.convolve(padded, np.ones(width) / width, "valid"))
    axes.plot(steps, values, color=colour, label=label, marker="o" if len(values) < 10 else "")


def from_to(name: str, points: tuple[Sequence[float], Sequence[float]]) -> str:
    """A line in words, from the steps and values of `series`: "mean reward from -0.20 at step 1 to 0.40 at step 24"."""
    steps, values = points
    if not steps:
        return f"{name} not logged"
    return f"{name} from {values[0]:.3g} at step {steps[0]} to {values[-1]:.3g} at step {steps[-1]}"


def spread(heights: Sequence[float], gap: float, top: float = math.inf) -> list[float]:
    """The heights of labels, moved apart until neighbours are `gap` apart and none is above `top`, with the least sum
    of squared moves: the isotonic regression of heights from which their place times `gap` is taken, by pooling
    adjacent violators, cut off where the highest label reaches the top.
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    pools: list[tuple[float, int]] = []  # sum and number of what moves as one
    for place, label in enumerate(order):
        total, count = heights[label] - place * gap, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            before, several = pools.pop()
            total, count = before + total, several + count
        pools.append((total, count))
    most = top - (len(heights) - 1) * gap
    means = [min(total / count, most) for total, count in pools for _ in range(count)]
    placed = list(heights)
    for place, (label, mean) in enumerate(zip(order, means, strict=True)):
        placed[label] = mean + place * gap
    return placed


def end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]], x: float) -> None:
    """Labels right of the lines' ends instead of a legend; `ends` are (y, text, colour) of each line."""
    for (_, text, colour), y in zip(ends, spread([end[0] for end in ends], 6.5), strict=True):
        axes.annotate(
            text, (x, y), xytext=(14, 0), textcoords="offset points", va="center",
            color=colour, fontweight="bold", annotation_clip=False,
        )
