"""What a notebook says of an experiment follows from its committed rows."""

import sys
from pathlib import Path

import pytest

from phi_lab.core.errors import UserError
from phi_lab.core.files import write_rows
from phi_lab.experiments import EXPERIMENTS, verdicts
from phi_lab.lab import paper_questions
from phi_lab.report.html import text

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
from experiment_rows import nested_rows, rows_of


def write(root, name, rows):
    path = root / verdicts.RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True)
    write_rows(path, rows)


def test_an_experiment_with_contrasts(tmp_path):
    """own-matched lies 10 points above all others: so it is said, in the sentence, the table and the figure's text."""
    experiment = EXPERIMENTS["one_batch"]
    write(tmp_path, "one_batch", rows_of(
        experiment, lambda arm, seed: 0.6 + (0.1 + 0.001 * (-1) ** seed) * (arm == "own-matched"), range(12)))
    page = paper_questions.found("one_batch", tmp_path)
    first = experiment.contrasts[0]
    assert (first.name, first.against) == ("own-matched", "teacher-pairs") and text(first.question) in page
    assert "supported: +10" in page and "12 seeds" in page and "own-matched − teacher-pairs, hard" in page
    assert page.count("<tr>") == 1 + len(experiment.contrasts) and "<img" in page and "own-matched 70" in page


def test_a_nested_one_has_its_levels_in_the_figure(tmp_path):
    write(tmp_path, "variance", nested_rows(EXPERIMENTS["variance"], range(12), sds=(0.05, 0.0)))
    page = paper_questions.found("variance", tmp_path)
    assert "supported: chains add a standard deviation of" in page and "Components of variance" in page


def test_one_that_has_not_run_says_so_with_its_command(tmp_path):
    page = paper_questions.found("rl_devices", tmp_path)
    assert "It has not run yet: <code>phi-lab experiment rl_devices" in page and "<img" not in page
    with pytest.raises(UserError, match="unknown experiment 'sft': choose one of mid_training"):
        paper_questions.found("sft", tmp_path)
