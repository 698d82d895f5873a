"""A trial of an experiment whose batch of rollouts is written by the script, half of it spoilt: nothing is sampled."""

import random
from dataclasses import replace

import pytest
from experiment_rows import BUDGET

from phi_lab.config import presets
from phi_lab.core.run_folder import RunFolder
from phi_lab.distill import shards, training_sets
from phi_lab.experiments import batch_uses, one_batch
from phi_lab.experiments.design import Trial
from phi_lab.model import chat
from phi_lab.problems import worked_solutions

STYLES = ("columns", "checking")  # of the student, of the teacher


def rollouts(problems, tokenizer, seed):
    """Eight rollouts of each problem: the first three right (of every third problem six), the others with a wrong
    answer.
    """
    rng, rows = random.Random(seed), []
    for number, problem in enumerate(problems):
        for sample in range(8):
            text = chat.completion_text(*worked_solutions.write_solution(problem, STYLES[seed], rng))
            right = sample < (6 if number % 3 == 0 else 3)
            if not right:
                text = text.replace("boxed{", f"boxed{{{seed + 1}{sample}")
            rows.append({**problem.row(), "split": problem.split, "sample": sample, "completion": text,
                         "verdict": "right" if right else "wrong", "finish_reason": "stop",
                         "tokens": len(chat.completion_ids(tokenizer, text)) + 1, "teacher": "script",
                         "temperature": 0.8, "seed": seed})
    return rows


@pytest.fixture(scope="package")
def trial(tmp_path_factory, tokenizer, shipped):
    """A trial of one_batch with the shipped SFT model and 12 questions."""
    shipped("sft")
    made = Trial(RunFolder(tmp_path_factory.mktemp("trial")), 0, presets.LAB, one_batch.Settings(12, BUDGET, 8))
    questions = batch_uses.questions(made)
    for seed, whose in enumerate(("own", "teacher")):
        folder, rows = batch_uses.batch(made, whose), rollouts(questions, tokenizer, seed)
        shards.write(folder.rollouts / "000000.parquet", rows)
        training_sets.write_training_sets(rows, folder.path)
    return made


@pytest.fixture
def of_lab(trial):
    """The same trial with the settings of an experiment's profile lab."""
    return lambda experiment: replace(trial, settings=experiment.settings["lab"])
