"""What a difference is worth, as a table, a curve and a widget, and what stands there before the experiment has run."""

import re

import numpy as np
import pytest

from phi_lab.core.files import write_rows
from phi_lab.experiments import EXPERIMENTS
from phi_lab.lab import difference_worth
from phi_lab.report import figures_variance, power
from phi_lab.report.spread import ProblemParts, Spread

PARTS = ProblemParts(sampling=0.07, training=1e-4, training_problem=0.02, chain=3e-4, chain_problem=0.02)
DRAWN = ProblemParts(*(np.array([0.5, 1.0, 2.0]) * one for one in PARTS))
SPREAD = Spread(PARTS, DRAWN, 500, 4)


def cells(page):
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)]


def test_the_table_holds_chance_smallest_difference_and_seeds():
    found = cells(difference_worth.worth(SPREAD, 2.0, 6, 500, 4))
    variances = PARTS.variances(500, 4)
    for line, paired in ((found[:4], True), (found[4:], False)):
        assert line[1] == f"{100 * power.power_of(0.02, variances, 6, paired):.0f} %"
        assert line[2] == f"{100 * power.detectable(variances, 6, paired):.1f}"
        low, high = (power.seeds_needed(0.02, power.Variances(*(factor * one for one in variances)), paired)
                     for factor in SPREAD.factors(paired, 500, 4))
        assert line[3] == f"{power.seeds_needed(0.02, variances, paired)} [{low}, {high}]" and low < high
    assert cells(difference_worth.worth(SPREAD, 0.1, 6, 30, 1))[3] == "more"
    page = difference_worth.worth(SPREAD, 2.0, 6, 500, 4)
    assert "500 problems x 4 samples" in page and "chain 1.8, training 1.2, evaluation 0.6" in page


def test_the_curve_says_where_the_difference_stands():
    alt = figures_variance.seen(SPREAD, 6, 0.02, 500, 4).alt
    variances = PARTS.variances(500, 4)
    chance = f"{100 * power.power_of(0.02, variances, 6, True):.0f} % (paired)"
    assert f"A difference of 2.0 points with 6 seeds of each recipe is seen in {chance}" in alt
    assert f"paired, {100 * power.detectable(variances, 3, True):.1f} with 3" in alt and "\n" not in alt


def test_the_widget_shows_what_the_function_does():
    widget = difference_worth.widget(SPREAD)
    points, seeds, problems, samples, view = widget.children
    assert view.value == difference_worth.shown(SPREAD, 2.0, 6, 500, 4)
    points.value, seeds.value, problems.value, samples.value = 7.5, 3, 30, 64
    assert view.value == difference_worth.shown(SPREAD, 7.5, 3, 30, 64)


def test_before_the_experiment_it_says_so_and_afterwards_reads_its_rows(tmp_path, monkeypatch):
    assert difference_worth.measured(tmp_path) is None
    assert "has not run" in difference_worth.widget(None).children[-1].value
    rows = [
        {**dict.fromkeys(difference_worth.contrasts.COLUMNS), "seed": seed, "name": arm, "measurements": [
            {"benchmark": "hard", "protocol": "sampled", "accuracy": sum(map(int, right)) / 16}],
         "notes": {"right": right, "samples": 4, "problems": "p"}}
        for seed, right in ((1, "4031"), (2, "4432")) for arm in EXPERIMENTS["variance"].arms]
    path = tmp_path / "data" / "experiments" / "variance.jsonl"
    path.parent.mkdir(parents=True)
    write_rows(path, rows)
    found = difference_worth.measured(tmp_path)
    # Eight answers to each problem: 8, 0, 6, 2 and 8, 8, 6, 4 right. x (8 - x) / 56: 0, 0, 12, 12 and 0, 0, 12, 16.
    assert found.parts.sampling == pytest.approx((12 + 12 + 12 + 16) / 56 / 8)
    assert found.parts.training == found.parts.training_problem == 0.0
