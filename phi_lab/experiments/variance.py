"""What is a difference worth? Components of variance of a pipeline: distilled sample, each stage's seed, evaluation.

Written before the first run.

**Question.** The paper prints one number for each stage, and not of how many trainings. Its authors measured the same
model again later and found 48.1 instead of 57.5 on AIME 2024. How much of a score is the recipe, how much the data and
the models that came before, how much the seed of the last stage, and how much which answers were sampled? No paper on
such a recipe says it. With it any difference can be read: to see d points one needs n seeds and m samples.

**Arms.** Nested, and without a rival: a *chain* (its own distilled sample and all stages before), in it *two trainings*
of a stage from the chain's own previous model, of each *two evaluations* with other sampling seeds. For each stage:

- `mid-own`, `mid-own-again`: the chain's own model after mid-training, measured twice
- `mid-new`, `mid-new-again`: mid-training on the same distilled sample with another seed, measured twice
- `sft-own`, `sft-own-again`, `sft-new`, `sft-new-again`: likewise SFT, from the chain's mid-trained model
- `dpo-own`, `dpo-own-again`, `dpo-new`, `dpo-new-again`: likewise Rollout DPO, from the chain's SFT model
- `grpo-own`, `grpo-own-again`, `grpo-new`, `grpo-new-again`: likewise GRPO, from the chain's Rollout DPO model

A stage's seed is all that it draws: the packing and order of mid-training, subset and order of SFT, the questions,
answers, pairs and order of Rollout DPO, the prompts, their order and the rollouts of GRPO. After mid-training the level
of the chain is its distilled sample alone; after a later stage it is that and the seeds of all stages before. All
chains share base, teacher and problems. What the base adds has an experiment of its own, `variance_bases`.

**Primary measure.** Accuracy at T = 0.6 on 500 problems of `hard`, four samples each. Kept for each problem: how many
of its four answers are right, and whether the greedy one is. Two greedy evaluations of a model are the same one.

**Claims** (balanced nested analysis of variance, F over the level below, Holm over all eight: chain and training, after
each of four stages; `NESTS`, the chain at the end is the primary one). What would count: seeds of the last stage are
no substitute for chains if chains differ by more than two trainings in one chain do. The effect is the standard
deviation that chains add to one score, in points, with a generalised 95 % interval; a component that comes out negative
is 0, with the upper end that it has. A level that is not shown has the smallest that would have been.

**What follows from it**, tested by nothing: evaluation noise as measured beside p (1 - p) / samples; a table of seeds
and samples for 0.5 to 5 points, paired and unpaired, with its interval by protocol; what of each level is luck with
single problems and so would be larger on 30 of them; each step of the ladder (a stage minus the one before) with its
spread over chains, and beside it the paper's steps and its re-run. Problems are the same for all, so nothing here holds
the chance of another benchmark. The components are those of a model with less than a million weights. A chain's own
models are compared with the published ones (data/chains.jsonl, by fingerprint), and the mean of trainings with another
seed with that of the chains' own: both were made alike, so they may differ by chance alone.

**Seeds.** 10 to 21: a seed is a whole chain of the ladder (`--chains` takes its models; without it they are made here,
40 minutes more a seed). With 80 % power twelve see chains that add 1.3 times the standard deviation that a training
adds, 1.9 times at Holm's strictest level, and 1.6 and 2.3 times where an evaluation adds as much as a training. The
interval of what chains add reaches from about half to twice of it where that is twice a training's part; where both are
equal, its lower end is typically 0.

**Budget**, as measured on the first chains of log 95: mid-training 720 s, SFT 125 s, Rollout DPO 800 s, GRPO 275 s;
sixteen measurements of 2,500 answers of 180 tokens, 45 s each: 44 minutes a seed and thread, 4.4 hours for twelve seeds
on two threads.

    phi-lab experiment variance --seeds 10-21 --jobs 2 --chains runs/ladder --out runs/variance
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.core.files import read_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.experiments.design import Experiment, Log, Trial
from phi_lab.report.components import Nest

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult

TITLES = {"grpo": "GRPO", "dpo": "Rollout DPO", "sft": "SFT", "mid": "mid-training"}  # the first is primary: the end
CELLS = {"own": "the chain's own", "own-again": "the same, other answers", "new": "trained with another seed",
         "new-again": "the same, other answers"}
ARMS = {f"{stage}-{cell}": f"{TITLES[stage]}, {words}" for stage in reversed(TITLES) for cell, words in CELLS.items()}
LEVELS = {"mid": ("distilled sample", "training", "evaluation")}  # nothing else is a chain's before its first stage
NESTS = tuple(
    Nest(stage, ((f"{stage}-own", f"{stage}-own-again"), (f"{stage}-new", f"{stage}-new-again")),
         LEVELS.get(stage, Nest.levels)) for stage in TITLES)
UNTRAINED = {arm: 0.6 for arm in ARMS if not arm.endswith("-new")}
MEASURE = {"benchmarks": ("", "hard", ""), "pass_problems": 0}


@dataclass(frozen=True)
class Settings:
    """retrained, evaluated: added to a chain's seed for the other training, and once more for each evaluation."""

    retrained: int = 1_000
    evaluated: int = 10_000


SETTINGS = {"lab": Settings(), "smoke": Settings()}


def chain(trial: Trial) -> RunFolder:
    """The folder of the chain that a seed is."""
    return trial.source or trial.run


def prepare(trial: Trial, log: Log) -> None:
    """The chain's own stages, where no other folder has them."""
    from phi_lab.config.schema import STAGES
    from phi_lab.pipeline.stage_runner import run_stage

    if trial.source is None:
        for stage in STAGES[1:]:
            run_stage(stage, trial.run, trial.config, trial.seed, log)


def start(trial: Trial, arm: str) -> Path:
    """The model that is measured; of a training, the chain's model of the stage before."""
    from phi_lab.pipeline.stage_runner import saved_config, start_checkpoint

    stage, cell, *_ = arm.split("-")
    if arm not in UNTRAINED:
        return start_checkpoint(stage, chain(trial), saved_config(chain(trial))[0])
    return chain(trial).stage(stage).model if cell == "own" else trial.folder(f"{stage}-new").model


def train(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """The chain's stage with its settings and its data, and another seed."""
    return train_stage(trial, arm.partition("-")[0], out, trial.seed + trial.settings.retrained)


def train_stage(trial: Trial, stage: str, out: Path, seed: int) -> TrainingResult:
    """What `stage_runner.run_stage` trains in the chain's folder, trained in `out`."""
    from phi_lab.pipeline.run_data import grpo_problems
    from phi_lab.pipeline.stage_runner import saved_config
    from phi_lab.stages import grpo, mid_training, rollout_dpo, sft

    student, data, (config, _) = start(trial, f"{stage}-new"), chain(trial).data, saved_config(chain(trial))
    if stage == "mid":
        return mid_training.train(student, data.right, data.validation, out, config.mid, seed=seed)
    if stage == "sft":
        return sft.train(student, data.right, data.validation, out, config.sft, seed=seed)
    if stage == "dpo":
        questions = grpo_problems(data, config.dpo.questions, seed + 40_000)
        return rollout_dpo.train(student, data.right, data.wrong, out, config.dpo, seed=seed, questions=questions)
    problems = grpo_problems(data, config.grpo.candidate_prompts, seed)
    return grpo.train(student, problems, out, config.grpo, seed=seed)


def evaluation_seed(trial: Trial, arm: str) -> int:
    """No two scores of a stage have the same: models that sample with equal random numbers would err alike."""
    cell = arm.partition("-")[2]
    return trial.seed + (1 + list(CELLS).index(cell)) * trial.settings.evaluated


def notes(trial: Trial, arm: str) -> dict:
    """What `scored` keeps of an arm's answers."""
    return scored(trial, arm, evaluation_seed(trial, arm))


def scored(trial: Trial, arm: str, seed: int) -> dict:
    """What a row keeps of the answers that `seed` sampled. "right": a digit for each problem, how many of its `samples`
    answers at T = 0.6 are right; "greedy": likewise of its greedy answer; "problems": a digest of which problems these
    are; "evaluation": the seed.
    """
    path, evaluation = trial.run.evals.answers(arm, "hard"), trial.config.evaluation
    sampled, greedy = right_answers(path, evaluation.temperature), right_answers(path, 0.0)
    names = hashlib.sha256("\n".join(sampled).encode()).hexdigest()[:16]
    return {"right": "".join(map(str, sampled.values())), "greedy": "".join(map(str, greedy.values())),
            "problems": names, "samples": evaluation.samples, "evaluation": seed}


def right_answers(path: Path, temperature: float) -> dict[str, int]:
    """How many answers at `temperature` are right, by problem of a file of answers, in its order."""
    counts: dict[str, int] = {}
    for row in read_rows(path, ("id", "temperature", "verdict")):
        if row["temperature"] == temperature:
            counts[row["id"]] = counts.get(row["id"], 0) + (row["verdict"] == "right")
    return counts


EXPERIMENT = Experiment(
    name="variance", question="What is a difference worth: how much of a score is chain, stage seed, evaluation?",
    arms=ARMS, nests=NESTS, seeds=range(10, 22), stage="grpo", makes_chains=True, settings=SETTINGS, problems=1,
    prepare=prepare, start=start, train=train, untrained=UNTRAINED, notes=notes, evaluation=MEASURE,
    evaluation_seed=evaluation_seed,
)
