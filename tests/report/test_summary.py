"""The sentences on top of a report: each is what the rows say, and only that."""

import pytest
from html_page import HOSTILE, Page

from phi_lab.report import summary
from phi_lab.report.doctor import Checked, Finding


def row(stage, benchmark, accuracy, half, arm="main"):
    return {"stage": stage, "arm": arm, "benchmark": benchmark, "protocol": "sampled", "accuracy": accuracy,
            "ci_low": accuracy - half, "ci_high": accuracy + half}


ROWS = [row("base", "hard", 0.02, 0.01), row("mid", "hard", 0.60, 0.03), row("sft", "hard", 0.64, 0.03),
        row("dpo", "hard", 0.80, 0.02), row("dpo", "hard", 0.65, 0.02, "paper"),
        row("base", "transfer", 0.38, 0.02), row("dpo", "transfer", 0.33, 0.02)]


def says(rows, config=None, expected=None, checked=()):
    return Page(summary.head(config or {}, rows, expected, checked)).says()


def test_gains_are_differences_of_the_chain_and_overlap_is_said():
    said = says(ROWS)
    assert "three to seven operations: 2.0 % [1.0, 3.0] (base), then 80.0 % [78.0, 82.0] (Rollout DPO)." in said
    assert "mid-training +58.0, SFT +4.0 (intervals overlap), Rollout DPO +16.0." in said  # and not the paper's arm
    assert "changes by -5.0 points" in said
    assert "The doctor" not in said and "Beside other seeds" not in said


def test_what_others_found_stands_there_and_is_escaped():
    finding = Finding("reward-flat", "seen", "meaning", "cause", "remedy")
    said = says(ROWS, expected=f"hard 80.0 %; {HOSTILE}", checked=[Checked("grpo/metrics.jsonl", 9, "rows", [finding])])
    assert "The doctor: 1 found: reward-flat." in said and f"Beside other seeds: hard 80.0 %; {HOSTILE}." in said
    nothing = Checked("sft/metrics.jsonl", 9, "rows", [])
    assert "The doctor: nothing found in 1 file." in says(ROWS, checked=[nothing])


def test_a_set_that_stands_for_a_benchmark_has_its_own_name():
    config = {"config": {"evaluation": {"benchmarks": ["math500", "aime24", ""]}}}
    said = says(ROWS, config)
    assert "aime24" in said and "three to seven operations" not in said
    assert "left out" in said and "puzzles of logic" not in said
    assert "three to seven operations" in says(ROWS, {"config": {"evaluation": {"benchmarks": ["easy", "hard", ""]}}})


def test_a_chain_begins_at_the_last_shipped_start():
    rows = [*ROWS, row("sft", "hard", 0.70, 0.02, "shipped")]
    said = says(rows)
    assert "70.0 % [68.0, 72.0] (shipped SFT), then 80.0 %" in said and "Rollout DPO +10.0." in said
    assert "Not one chain: Rollout DPO starts from the shipped checkpoint" in said


@pytest.mark.parametrize("rows", [[], ROWS[:1]])
def test_nothing_is_said_of_a_run_that_has_measured_nothing_yet(rows):
    assert "Points that each stage adds" not in says(rows)
