"""What is a difference worth? Choose one, and see what seeds, problems and samples show it.

    scores = difference_worth.measured()                # from the rows of `phi-lab experiment variance`
    difference_worth.shown(scores, 2.0, 6, 500, 4)      # 2 points, 6 seeds of each recipe, 500 problems x 4 samples
    difference_worth.widget(scores)                     # with a running kernel
"""

from pathlib import Path

import ipywidgets

from phi_lab.core.paths import ROOT
from phi_lab.experiments import EXPERIMENTS, verdicts
from phi_lab.lab import tables
from phi_lab.lab.widgets import SLOW, live_html
from phi_lab.report import contrasts, figures_variance, power, spread
from phi_lab.report.spread import Spread

NOT_RUN = "<p>The experiment <code>variance</code> has not run: its components are not known yet.</p>"


def measured(root: Path = ROOT) -> Spread | None:
    """How scores spread after the last stage, from the committed rows of `variance`; None where it has not run. Raises
    UserError for a damaged file.
    """
    path = root / verdicts.RESULTS / "variance.jsonl"
    if not path.exists():
        return None
    return spread.measured(contrasts.read(path), EXPERIMENTS["variance"].nests[0])


def worth(scores: Spread, points: float, seeds: int, problems: int, samples: int) -> str:
    """A table: the chance that two recipes which differ by `points` are told apart, the smallest difference that has a
    chance of 80 %, and the seeds that `points` need, with the ends of their interval; paired by chain, and not. points:
    above 0; seeds: two or more.
    """
    variances = scores.variances(problems, samples)
    lines = []
    for name, paired in (("from the same chains", True), ("from chains of their own", False)):
        needed = power.needed(points / 100, variances, paired, scores.factors(paired, problems, samples))
        lines.append((name, f"{100 * power.power_of(points / 100, variances, seeds, paired):.0f} %",
                      f"{100 * power.detectable(variances, seeds, paired):.1f}", f"{needed}"))
    deviations = ", ".join(f"{name} {100 * one**0.5:.1f}" for name, one in variances._asdict().items())
    head = (f"{seeds} seeds of each recipe", f"chance to see {points:g} points", "smallest difference seen, points",
            f"seeds that {points:g} points need")
    caption = (f"{problems:,} problems x {samples} samples; standard deviations of one score, points: {deviations}. "
               f"Recipes of the last stage; a t-test at 5 %, 80 % power; more: above {power.MOST:,} seeds. In "
               "brackets, for the ends of the 95 % interval of the variance. The same chains: with stage seeds of "
               "their own, and no recipe that gains more from one chain than from another.")
    return tables.table(caption, head, lines)


def shown(scores: Spread | None, points: float, seeds: int, problems: int, samples: int) -> str:
    """The table of `worth` under the curve of the smallest difference that is seen, as HTML; a line where no scores are
    known.
    """
    if scores is None:
        return NOT_RUN
    figure = figures_variance.seen(scores, seeds, points / 100, problems, samples)
    return figure._repr_html_() + worth(scores, points, seeds, problems, samples)


def widget(scores: Spread | None) -> ipywidgets.Widget:
    """Choose a difference, the number of seeds, and how a score is measured."""
    points = ipywidgets.FloatSlider(2.0, min=0.5, max=15.0, step=0.5, description="difference, points", **SLOW)
    seeds = ipywidgets.IntSlider(6, min=2, max=48, description="seeds of each recipe", **SLOW)
    problems = ipywidgets.SelectionSlider(options=[30, 100, 200, 500, 1000, 5000], value=500, description="problems",
                                          **SLOW)
    samples = ipywidgets.SelectionSlider(options=[1, 2, 4, 8, 16, 64], value=4, description="samples of each", **SLOW)
    return live_html(lambda: shown(scores, points.value, seeds.value, problems.value, samples.value),
                     points, seeds, problems, samples)
