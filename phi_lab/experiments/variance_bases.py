"""What does the base add? Three bases, two chains of each up to mid-training, two evaluations.

Written before the first run; optional, as it costs two pretrainings and can say little.

**Question.** Every chain of this course starts from one base, as every number of the paper does. `variance` measures
what seeds add from distillation on; this one asks whether the base itself, pretrained with another seed, adds as much.

**Arms.** The same nest one level up: a *base*, in it *two chains* (each with its own distilled sample and mid-training;
the teacher is the shipped one throughout), of each *two evaluations*: `mid-1`, `mid-1-again`, `mid-2`, `mid-2-again`.

**Primary measure.** Accuracy at T = 0.6 on 500 problems of `hard`, four samples each, after mid-training: it says
nothing of what later stages make of a base.

**Claims** (nested analysis of variance as in `variance`, Holm over all two: base over chain, the primary one, and chain
over evaluation). What would count: the base counts if bases differ by more than two chains of one do. Three bases have
two degrees of freedom: with 80 % power only a base that adds 5.7 times the standard deviation of one chain is seen (19
points, if that is the 3.3 of the ladder's chains after mid-training), and the interval of its standard deviation
reaches to more than six times the estimate. So this can show that bases are a large part, or bound what they add from
above, coarsely. It cannot show that they add nothing.

**Seeds.** 0 to 2, a seed is a base: 0 the shipped one, on which the course's settings were chosen and which is so far
no random draw, 1 and 2 pretrained here with the shipped one's settings. Chains are made here, with seeds that no ladder
has.

**Budget.** Two bases of 19.4 million tokens at 5,000 a second, 65 minutes each; six chains of 240 s distillation, 720 s
mid-training and two measurements of 45 s: 235 minutes of one thread, two hours of two.

    phi-lab experiment variance_bases --seeds 0-2 --jobs 2 --out runs/variance_bases
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.config import presets
from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core import paths
from phi_lab.core.run_folder import RunFolder
from phi_lab.experiments.design import Experiment, Log, Trial
from phi_lab.experiments.variance import MEASURE, scored
from phi_lab.report.components import Nest

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult

ARMS = {
    "mid-1": "mid-training of one chain", "mid-1-again": "the same, other answers",
    "mid-2": "mid-training of another chain", "mid-2-again": "the same, other answers",
}
NESTS = (Nest("mid", (("mid-1", "mid-1-again"), ("mid-2", "mid-2-again")), ("base", "chain", "evaluation")),)
UNTRAINED = {"mid-1-again": 0.6, "mid-2-again": 0.6}


@dataclass(frozen=True)
class Settings:
    """base: of pretraining. pretrained, chains: added to a seed for its base and, twice the seed, for its chains."""

    base: LanguageModelingConfig
    pretrained: int = 200
    chains: int = 300


SETTINGS = {
    "lab": Settings(presets.BASE),
    "smoke": Settings(replace(presets.BASE, steps=4, eval_steps=2, documents=200)),
}


def chain_seed(trial: Trial, arm: str) -> int:
    """That of the chain of an arm."""
    return trial.settings.chains + 2 * trial.seed + int(arm.split("-")[1])


def prepare(trial: Trial, log: Log) -> None:
    """The base, unless it is the shipped one, and the distilled sample of each chain."""
    from phi_lab.pipeline.run_data import training_data
    from phi_lab.pipeline.stage_runner import train_and_record
    from phi_lab.stages import base

    folder = trial.run.stage("base")
    if trial.seed and not folder.finished:
        seed = trial.settings.pretrained + trial.seed
        train_and_record(folder, lambda: base.train_base(folder.path, trial.settings.base, seed), log)
    for arm in ("mid-1", "mid-2"):
        training_data(chain(trial, arm), trial.config, chain_seed(trial, arm), log)


def chain(trial: Trial, arm: str) -> RunFolder:
    """Where the data of an arm's chain are."""
    return RunFolder(trial.run.path / f"chain-{arm.split('-')[1]}")


def start(trial: Trial, arm: str) -> Path:
    """The base; of an arm that only measures again, the model."""
    if arm in UNTRAINED:
        return trial.folder(arm.removesuffix("-again")).model
    return trial.run.stage("base").model if trial.seed else paths.SHIPPED / "base"


def train(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """Mid-training of the base on the sample of a chain."""
    from phi_lab.stages import mid_training

    data = chain(trial, arm).data
    return mid_training.train(start(trial, arm), data.right, data.validation, out, trial.config.mid,
                              seed=chain_seed(trial, arm))


def evaluation_seed(trial: Trial, arm: str) -> int:
    """No two scores have the same."""
    return 10_000 + 10 * trial.seed + list(ARMS).index(arm)


def notes(trial: Trial, arm: str) -> dict:
    """As those of `variance`: right answers to each problem, how many it has, and the seed that sampled them."""
    return scored(trial, arm, evaluation_seed(trial, arm))


EXPERIMENT = Experiment(
    name="variance_bases", question="How much does the base add to the spread of what mid-training makes of it?",
    arms=ARMS, nests=NESTS, seeds=range(3), stage="base", makes_chains=True, settings=SETTINGS, problems=1,
    prepare=prepare, start=start, train=train, untrained=UNTRAINED, notes=notes, evaluation=MEASURE,
    evaluation_seed=evaluation_seed,
)
