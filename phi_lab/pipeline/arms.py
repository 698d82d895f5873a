"""Further arms of a stage, trained and measured beside its main one: the paper's DPO here, controls in `experiment`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.config.schema import DPOConfig, RunConfig
from phi_lab.core.locks import one_process
from phi_lab.core.run_folder import RunFolder
from phi_lab.pipeline.measure import measure
from phi_lab.pipeline.run_data import training_data
from phi_lab.pipeline.stage_runner import check_start_checkpoint, start_checkpoint, train_and_record

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult

PAPER_PAIRS = 800  # at most: 100 steps of the lab's batch, about the compute of the stage that samples its own


@one_process
def run_arm(
    stage: str, arm: str, start: Path, run: RunFolder, config: RunConfig, seed: int,
    train: Callable[[Path], TrainingResult],
    log: Callable[[str], None] = print,
) -> None:
    """Train another arm of a stage from the model `start` by `train(folder)`, unless it is done, and measure it."""
    folder = run.stage(stage, arm)
    check_start_checkpoint(folder, start)
    if not folder.finished:
        train_and_record(folder, lambda: train(folder.path), log)
    measure(stage, run, config, seed, log, arm)


def paper_dpo(config: DPOConfig) -> DPOConfig:
    """The paper's Rollout DPO beside a stage that has these settings: one epoch over pairs that are all the teacher's,
    with DPO's loss alone. AdamW has a tenth of the rate, since nothing holds the chosen side (docs/log.md, 93).
    """
    return replace(
        config, pairs="teacher", max_pairs=min(config.max_pairs, PAPER_PAIRS), max_student_nll=math.inf, epochs=1,
        sft_weight=0.0, muon=False, learning_rate=config.learning_rate / 10,
    )


def run_paper_dpo(
    run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print, **functions
) -> None:
    """Rollout DPO as in the paper, on pairs of the teacher's rollouts: the arm "paper", beside a stage whose pairs are
    the student's own. `functions` are a learner's: pair=.
    """
    from phi_lab.stages import rollout_dpo  # loads TRL: a notebook that trains nothing starts without

    student, plan = start_checkpoint("dpo", run, config), paper_dpo(config.dpo)

    def train(folder: Path) -> TrainingResult:
        data = training_data(run, config, seed, log)
        return rollout_dpo.train(student, data.right, data.wrong, folder, plan, seed=seed, **functions)

    run_arm("dpo", "paper", student, run, config, seed, train, log)
