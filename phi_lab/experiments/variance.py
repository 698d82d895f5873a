"""What is a difference worth? Components of variance of a post-training pipeline: chain, stage seed, evaluation.

Written before the first run.

**Question.** The paper prints one number for each stage, from one training. Its authors measured the same model again
later and found 48.1 instead of 57.5 on AIME 2024. How much of a score is the recipe, how much the data and the models
that came before, how much the seed of the last stage, and how much which answers were sampled? No paper on such a
recipe says it. With it any difference can be read: to see d points one needs n seeds and m samples.

**Arms.** Nested, and without a rival: a *chain* (its own distilled sample, mid-training and all stages before), in it
*two trainings* of a stage from the chain's own previous model, of each *two evaluations* with other sampling seeds.
For SFT, Rollout DPO and GRPO:

- `sft-own`, `sft-own-again`: the chain's own model, measured twice
- `sft-new`, `sft-new-again`: SFT of the same start with another seed, measured twice
- `dpo-own`, `dpo-own-again`, `dpo-new`, `dpo-new-again`: likewise Rollout DPO, from the chain's SFT model
- `grpo-own`, `grpo-own-again`, `grpo-new`, `grpo-new-again`: likewise GRPO, from the chain's Rollout DPO model

A stage's seed is all that it draws: subset and order of SFT, the questions, answers, pairs and order of Rollout DPO,
the prompts, their order and the rollouts of GRPO. The chain level holds distillation *and* all earlier stages: to part
them mid-training would have to be repeated, which takes another 2.5 hours. All chains share base, teacher and problems.
What the base adds has an experiment of its own, `variance_bases`.

**Primary measure.** Accuracy at T = 0.6 on 500 problems of `hard`, four samples each. Kept for each problem: how many
of its four answers are right. Greedy accuracy stands in the rows; two greedy evaluations are the same one.

**Claims** (balanced nested analysis of variance, F over the level below, Holm over all six: chain and training, after
each of three stages; `NESTS`, the chain at the end is the primary one). What would count: seeds of the last stage are
no substitute for chains if chains differ by more than two trainings in one chain do. The effect is the standard
deviation that chains add to one score, in points, with a generalised 95 % interval; a component that comes out negative
is 0, with the upper end that it has. A level that is not shown has the smallest that would have been.

**What follows from it**, tested by nothing: evaluation noise as measured beside p (1 - p) / samples; a table of seeds
and samples for 0.5 to 5 points, paired and unpaired; what of each level is luck with single problems and so would be
larger on 30 of them; the paper's differences and its re-run beside both. Problems are the same for all, so nothing here
holds the chance of another benchmark. The components are those of a model with less than a million weights.

**Seeds.** 10 to 21: a seed is a whole chain of the ladder (`--chains` takes its models; without it they are made here,
40 minutes more a seed). With 80 % power twelve see chains that add 1.3 times the standard deviation that a training
adds, 1.8 times at Holm's strictest level, and 1.6 and 2.2 times where an evaluation adds as much as a training; the
interval of what chains add reaches from about half to twice of it.

**Budget**, as measured on the first chains of log 95: SFT 125 s, Rollout DPO 800 s, GRPO 275 s; twelve measurements of
2,500 answers of 180 tokens, 45 s each: 29 minutes a seed and thread, 175 minutes for twelve seeds on two threads.

    phi-lab experiment variance --seeds 10-21 --jobs 2 --chains runs/ladder --out runs/variance
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.core.files import read_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.experiments.design import Experiment, Log, Trial
from phi_lab.report.components import Nest

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult

TITLES = {"grpo": "GRPO", "dpo": "Rollout DPO", "sft": "SFT"}  # the end first: the first nest is the primary one
CELLS = {"own": "the chain's own", "own-again": "the same, other answers", "new": "trained with another seed",
         "new-again": "the same, other answers"}
ARMS = {f"{stage}-{cell}": f"{TITLES[stage]}, {words}" for stage in reversed(TITLES) for cell, words in CELLS.items()}
NESTS = tuple(
    Nest(stage, ((f"{stage}-own", f"{stage}-own-again"), (f"{stage}-new", f"{stage}-new-again"))) for stage in TITLES)
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
    from phi_lab.stages import grpo, rollout_dpo, sft

    student, data, (config, _) = start(trial, f"{stage}-new"), chain(trial).data, saved_config(chain(trial))
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
    """"right": a digit for each problem, how many of its `samples` answers at T = 0.6 are right; "evaluation": the seed
    of its answers; "chain_code": the digest of the code that trained the chain's own model, None where that is made
    here. A chain that other code has trained differs from its repetition by more than a seed.
    """
    return {**scored(trial, arm, evaluation_seed(trial, arm)), "chain_code": chain_code(trial, arm.partition("-")[0])}


def scored(trial: Trial, arm: str, seed: int) -> dict:
    """What a row keeps of the answers that `seed` sampled: see `notes`."""
    evaluation = trial.config.evaluation
    return {"right": right_answers(trial.run.evals.answers(arm, "hard"), evaluation.temperature),
            "samples": evaluation.samples, "evaluation": seed}


def right_answers(path: Path, temperature: float) -> str:
    """A digit for each problem of a file of answers, in its order: how many at `temperature` are right."""
    counts: dict[str, int] = {}
    for row in read_rows(path, ("id", "temperature", "verdict")):
        if row["temperature"] == temperature:
            counts[row["id"]] = counts.get(row["id"], 0) + (row["verdict"] == "right")
    return "".join(map(str, counts.values()))


def chain_code(trial: Trial, stage: str) -> str | None:
    """The digest of the code with which a chain of another folder trained `stage`; None where it does not say."""
    if trial.source is None or not (path := trial.source.path / "rungs.jsonl").exists():
        return None
    return next((row["code"] for row in read_rows(path, ("name", "code")) if row["name"] == stage), None)


EXPERIMENT = Experiment(
    name="variance", question="What is a difference worth: how much of a score is chain, stage seed, evaluation?",
    arms=ARMS, nests=NESTS, seeds=range(10, 22), stage="grpo", makes_chains=True, settings=SETTINGS, problems=1,
    prepare=prepare, start=start, train=train, untrained=UNTRAINED, notes=notes, evaluation=MEASURE,
    evaluation_seed=evaluation_seed,
)
