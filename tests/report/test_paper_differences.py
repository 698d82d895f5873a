"""The paper's differences: how often it must have sampled, what evaluation allows, what seeds would add."""

import math

import pytest

from phi_lab.report import paper_differences
from phi_lab.report.components import ProblemParts
from phi_lab.report.paper_differences import Score, fewest_samples, readings

PARTS = ProblemParts(sampling=0.05, training=1e-4, training_problem=0.03, chain=4e-4, chain_problem=0.06)


@pytest.mark.parametrize(("percent", "problems", "samples"), [
    (57.5, 30, 4),  # 69 of 120: no third of 30 problems gives it
    (50.0, 30, 1), (43.3, 30, 1), (94.6, 500, 1), (82.9, 500, 2), (48.3, 198, 3), (52.0, 198, 1), (0.1, 1, 64),
])
def test_a_printed_value_says_how_often_it_was_sampled_at_least(percent, problems, samples):
    assert fewest_samples(percent, problems) == samples


def test_sampling_cannot_give_more_than_this():
    """All problems equally hard is the worst case: with some always solved the spread is smaller."""
    assert Score(57.5, 30, 4).evaluation == pytest.approx(0.575 * 0.425 / 120)
    assert Score(57.5, 30, 4).evaluation > (15 * 0.0 + 15 * 0.15 * 0.85) / 30 / 120


def test_the_rerun_by_hand():
    """57.5 of at least 4 samples a problem, 48.13 of 64: sqrt(0.575 x 0.425 / 120 + 0.4813 x 0.5187 / 1920) is 4.65
    points, and 9.37 points are twice that.
    """
    (one,) = [one for one in readings(PARTS) if one.benchmark == "AIME 2024" and "re-run of" in one.what]
    assert one.difference == pytest.approx(-9.37) and one.evaluation == pytest.approx(4.65, abs=0.005)
    assert one.z_evaluation == pytest.approx(2.015, abs=0.005)
    assert one.with_seeds is None and one.z_seeds is None  # the same weights: no seed is in it


def test_seeds_of_ours_are_added_where_models_differ():
    found = {(one.what, one.benchmark): one for one in readings(PARTS)}
    step = found["GRPO over Rollout DPO", "AIME 2024"]
    assert step.difference == pytest.approx(7.5)
    evaluation = 0.575 * 0.425 / 120 + 0.25 / 30
    assert step.evaluation == pytest.approx(100 * math.sqrt(evaluation))
    assert step.with_seeds == pytest.approx(100 * math.sqrt(evaluation + 1e-4 + 0.03 / 30))
    rival = found["re-run: this model over R1-Distill-Qwen-7B", "MATH-500"]
    seeds = 2 * (1e-4 + 0.03 / 500) + 2 * (4e-4 + 0.06 / 500)
    assert rival.with_seeds == pytest.approx(100 * math.sqrt((rival.evaluation / 100) ** 2 + seeds))
    assert rival.difference == pytest.approx(-1.83) and rival.z_seeds < rival.z_evaluation


def test_the_table_without_a_run_of_ours():
    table = paper_differences.table()
    assert len(table) == 1 + 3 * 6 and all(len(row) == 7 for row in table)
    assert all(row[5:] == ["–", "–"] for row in table[1:])
    assert ["re-run of the final model", "GPQA Diamond", "-7.5"] in [row[:3] for row in table]
