"""SFT learns where to stop, chooses a compact subset, and resumes where it was killed."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from stage_helpers import SFT, both, check_leftovers, interrupted, log_probabilities, loss_on, moved, weights

from phi_lab.core.files import read_rows
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic, worked_solutions
from phi_lab.stages import sft


@pytest.mark.slow
def test_sft_learns_also_where_to_stop(tmp_path, student, data):
    result = sft.train(student, *both(data), tmp_path, SFT, seed=0)
    check_leftovers(result, tmp_path)
    assert moved(student, result.model) > 0.01
    rows = sft.choose(read_rows(data / "train-right.jsonl"), 40, 0)
    assert loss_on(result.model, rows) < loss_on(student, rows) - 0.5
    stops = {}
    for folder in (student, result.model):
        model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
        with torch.no_grad():
            last = [log_probabilities(model, tokenizer, row["prompt"], row["completion"])[-1] for row in rows]
        stops[folder] = torch.stack(last).mean().item()
    assert stops[result.model] > stops[student] + 0.5


def test_sft_chooses_a_compact_harder_subset_of_answers_that_are_written_out():
    work = "<think>12+3:2+3=5,1;15.</think>\\boxed{15}"
    rows = [
        {
            "id": f"q{question}",
            "domain": "arithmetic",
            "level": 1 + question % 4,
            "pass_rate": question / 40,
            "tokens": 40 + 7 * (sample * 3 % 5),
            "completion": work,
        }
        for question in range(40)
        for sample in range(5)
    ]
    terse = [{**row, "completion": f"<think>12+3:5,{n};15.</think>\\boxed{{15}}"} for n, row in enumerate(rows)]
    some = sft.choose(terse, 1000, 0)
    assert 40 < len(some) < 115  # about half of 200, at most three a question
    chosen = sft.choose(rows, 1000, 0)
    assert len(chosen) == 120  # three of five answers to each question
    for name in {row["id"] for row in chosen}:
        tokens = [row["tokens"] for row in chosen if row["id"] == name]
        assert len(tokens) == len(set(tokens)) == 3
    assert len({row["tokens"] for row in chosen}) == 5  # no length is preferred
    compact = sft.choose(rows, 49, 0)
    assert Counter(row["level"] for row in compact) == {1: 14, 2: 7, 3: 14, 4: 14}
    for level in (1, 2, 3, 4):  # what the teacher failed most comes first
        rates = [row["pass_rate"] for row in compact if row["level"] == level]
        assert rates == sorted(rates) and set(rates) == {row["pass_rate"] for row in rows if row["level"] == level
                                                         and row["pass_rate"] <= max(rates)}
    assert sft.choose(rows, 49, 0) == compact != sft.choose(rows, 49, 1)
    for count in range(1, 20):  # however few, and of each level while there are enough
        few = sft.choose(rows, count, 0)
        assert 0 < len(few) <= count and len({row["level"] for row in few}) == min(4, count)
    lonely = [{"id": "a", "domain": "arithmetic", "level": 3, "pass_rate": 0.1, "tokens": 5, "completion": work}]
    assert sft.choose(lonely, 9, 0) == lonely
    text = [{**lonely[0], "domain": "gsm8k", "level": 0, "completion": "<think>So it is.</think>\\boxed{15}"}]
    assert sft.choose(text, 9, 0) == text  # no columns to write out


def test_the_form_of_a_solution_is_told_by_its_columns():
    rng, seen = random.Random(1), set()
    for _ in range(300):
        problem = arithmetic.sample(rng, rng.randint(1, 4))
        style = rng.choice(worked_solutions.STYLES)
        work, _ = worked_solutions.write_solution(problem, style, rng)
        terse = style == "terse" and problem.level > 1
        seen.add((style, terse))
        assert worked_solutions.shows_columns(work) != terse, work
    assert len(seen) == 4


@pytest.mark.slow
def test_sft_killed_and_resumed_ends_at_the_same_weights(tmp_path, student, data, monkeypatch):
    """It measures at its end only, and saves every 20 steps all the same."""

    def run(out):
        return sft.train(student, *both(data), out, replace(SFT, steps=23, batch_size=2), seed=3)

    whole = run(tmp_path / "whole")
    resumed, steps = interrupted(monkeypatch, lambda: run(tmp_path / "resumed"), at=22)
    assert steps == [21, 22, 23]
    first, second = weights(whole.model), weights(resumed.model)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6
