"""The paper's differences: how often it must have sampled, what evaluation allows, what seeds would add."""

import math

import numpy as np
import pytest

from phi_lab.report import paper_differences
from phi_lab.report.paper_differences import Score, fewest_samples, readings
from phi_lab.report.steps import Step

DRAWN = np.array([[0.005] * 20_000, [0.03] * 20_000])
STEPS = {  # 12 chains; variances of the difference, and of it by sampling and by problem, of 500
    stage: Step(stage, None, 12, 0.1, square, 0.005, 0.03, DRAWN, 500)
    for stage, square in (("mid", 9e-4), ("sft", 12e-4), ("dpo", 2e-4), ("grpo", 3e-4), ("whole", 5e-4))}


@pytest.mark.parametrize(("percent", "problems", "samples"), [
    (57.5, 30, 4),  # 69 of 120: no third of 30 problems gives it
    (50.0, 30, 1), (43.3, 30, 1), (94.6, 500, 1), (82.9, 500, 2), (48.3, 198, 3), (52.0, 198, 1), (0.1, 1, 64),
])
def test_a_printed_value_says_how_often_it_was_sampled_at_least(percent, problems, samples):
    assert fewest_samples([percent], problems) == samples


def test_how_often_each_value_of_a_benchmark_was_sampled_if_all_were_alike():
    """57.5 % of 30 problems takes four, 82.9 % of 500 two, 42.6 % of 198 three; these fit the others, too."""
    found = {name: fewest_samples(paper_differences.values_of(name), problems)
             for name, problems in paper_differences.PROBLEMS.items()}
    assert found == {"AIME 2024": 4, "MATH-500": 2, "GPQA Diamond": 3}
    assert 31.3 not in paper_differences.values_of("AIME 2024")  # copied there from another report


def test_with_as_many_samples_each_a_difference_is_worth_more():
    """Base and mid-training on AIME: 10.0 and 30.0 % of 30 problems with four samples each."""
    for one in readings(STEPS):
        assert one.equally[0] <= one.evaluation
        assert one.equally[1] is None if one.with_seeds is None else one.equally[1] <= one.with_seeds[0]
    found = {(one.what, one.benchmark): one for one in readings(STEPS)}
    one = found["mid-training over base", "AIME 2024"]
    assert one.equally[0] == pytest.approx(100 * math.sqrt((0.1 * 0.9 + 0.3 * 0.7) / 120))
    seeds = STEPS["mid"].variance(30)[0]
    assert one.equally[1] == pytest.approx(100 * math.sqrt((0.1 * 0.9 + 0.3 * 0.7) / 120 + seeds))
    rerun = found["re-run of OpenThinker-7B over its first value", "AIME 2024"]
    assert rerun.equally == (rerun.evaluation, None)  # its first value has its own number of samples


def test_sampling_cannot_give_more_than_this():
    """All problems equally hard is the worst case: with some always solved the spread is smaller."""
    assert Score(57.5, 30, 4).evaluation == pytest.approx(0.575 * 0.425 / 120)
    assert Score(57.5, 30, 4).evaluation > (15 * 0.0 + 15 * 0.15 * 0.85) / 30 / 120


def test_the_rerun_by_hand():
    """57.5 of at least 4 samples a problem, 48.13 of 64: sqrt(0.575 x 0.425 / 120 + 0.4813 x 0.5187 / 1920) is 4.65
    points, and 9.37 points are twice that. Another model moved 4.25 points on MATH-500 between the same two protocols.
    """
    found = {(one.what, one.benchmark): one for one in readings(STEPS)}
    one = found["re-run of this model over its first value", "AIME 2024"]
    assert one.difference == pytest.approx(-9.37) and one.evaluation == pytest.approx(4.65, abs=0.005)
    assert one.z_evaluation == pytest.approx(2.015, abs=0.005)
    assert one.with_seeds is None and one.z_seeds is None  # the same weights: no seed is in it
    other = found["re-run of OpenThinker-7B over its first value", "MATH-500"]
    assert other.difference == pytest.approx(4.25) and other.z_evaluation > 2


def test_a_step_of_ours_stands_in_for_each_of_the_papers():
    found = {(one.what, one.benchmark): one for one in readings(STEPS)}
    for what, stage in (("mid-training over base", "mid"), ("SFT over mid-training", "sft"),
                        ("Rollout DPO over SFT", "dpo"), ("GRPO over Rollout DPO", "grpo")):
        one, (middle, low, high) = found[what, "AIME 2024"], STEPS[stage].variance(30)
        assert middle == pytest.approx(STEPS[stage].square - 1e-5 - 0.03 / 500 + 0.03 / 30)
        assert one.with_seeds == tuple(
            pytest.approx(math.sqrt(one.evaluation**2 + 100**2 * end)) for end in (middle, low, high)), what
        assert one.with_seeds[1] < one.with_seeds[0] < one.with_seeds[2]
    assert found["GRPO over Rollout DPO", "AIME 2024"].difference == pytest.approx(7.5)
    assert found["GRPO over Rollout DPO", "AIME 2024"].evaluation == pytest.approx(
        100 * math.sqrt(0.575 * 0.425 / 120 + 0.25 / 30))


def test_two_models_are_two_whole_pipelines():
    found = {(one.what, one.benchmark): one for one in readings(STEPS)}
    for what in ("this model over R1-Distill-Qwen-7B", "re-run: this model over R1-Distill-Qwen-7B"):
        one = found[what, "MATH-500"]
        seeds = 2 * STEPS["whole"].variance(500)[0]
        assert one.with_seeds[0] == pytest.approx(100 * math.sqrt((one.evaluation / 100) ** 2 + seeds))
        assert one.z_seeds < one.z_evaluation
    assert found["this model over R1-Distill-Qwen-7B", "MATH-500"].difference == pytest.approx(3.2)  # the abstract's
    assert found["this model over R1-Distill-Llama-8B", "MATH-500"].difference == pytest.approx(7.7)
    assert found["re-run: this model over R1-Distill-Qwen-7B", "MATH-500"].difference == pytest.approx(-1.83)


def test_the_table_without_a_run_of_ours():
    table = paper_differences.table()
    assert len(table) == 1 + 3 * 11 and all(len(row) == 8 for row in table)
    assert all(row[5:7] == ["–", "–"] and ";" not in row[7] for row in table[1:])
    assert ["re-run of this model over its first value", "GPQA Diamond", "-7.5"] in [row[:3] for row in table]
    assert sum("[" in row[5] for row in paper_differences.table(STEPS)) == 3 * 7
