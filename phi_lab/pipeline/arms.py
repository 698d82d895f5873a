"""Further arms of a stage, trained and measured beside its main one: on-policy DPO here, controls in `experiment`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.config.schema import RunConfig
from phi_lab.core.locks import one_process
from phi_lab.core.run_folder import DataFolder, RunFolder
from phi_lab.distill import shards, teachers, training_sets
from phi_lab.pipeline.measure import measure
from phi_lab.pipeline.stage_runner import check_start_checkpoint, start_checkpoint, train_and_record
from phi_lab.problems import arithmetic

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult


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


def run_on_policy_dpo(run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print) -> None:
    """Rollout DPO on pairs of the student's own rollouts instead of the teacher's: the arm "own"."""
    from phi_lab.stages import rollout_dpo  # loads TRL: a notebook that trains nothing starts without

    student = start_checkpoint("dpo", run, config)

    def train(folder: Path) -> TrainingResult:
        plan, data = replace(config.distillation, questions=config.dpo.on_policy_questions), DataFolder(folder)
        questions = arithmetic.sample_problems(plan.questions, seed + 90_000, levels=(3, 4))
        shards.collect_rollouts(
            teachers.model_teacher(student, plan, seed), questions, data.rollouts, name="student", samples=plan.samples,
            temperature=plan.temperature, seed=seed,
        )
        training_sets.write_training_sets(shards.rows(data.rollouts), folder, about="Sampled from the student itself.")
        return rollout_dpo.train(student, data.right, data.wrong, folder, config.dpo, seed=seed)

    run_arm("dpo", "own", student, run, config, seed, train, log)
