"""The paper's own differences, and its authors' later re-run: what evaluation alone allows, and what seeds would add.

The paper prints one number for each stage, from one training, without an interval. Two things can still be said of its
differences. **Evaluation**: answers are sampled, so the same weights give other scores; the variance of a score is at
most p (1 - p) / (problems x samples), and less where some problems are always and others never solved. How often the
paper sampled is unknown; the printed value says how often at least (57.5 % of 30 problems takes four samples each).
**Pipeline**: another seed gives another model. How much is not known for the paper, and nobody has measured it there;
here the components of our own world stand in for it, scaled to the number of problems. They are of a model with less
than a million weights on arithmetic, so this says what a difference would be worth *if* seeds moved theirs as they move
ours, and no more.

Same weights differ by evaluation only, a stage from the one before it also by that stage's seed, two models by
both seeds of both pipelines. Values: shared notes on arXiv 2504.21233 (second-hand, [S2]) and the card of
Phi-4-mini-flash-reasoning, arXiv 2507.06607 ([P]); docs/glossary.md explains the marks.
"""

import math
from typing import NamedTuple

from phi_lab.report.components import ProblemParts

PROBLEMS = {"AIME 2024": 30, "MATH-500": 500, "GPQA Diamond": 198}
RERUN_SAMPLES = {"AIME 2024": 64, "MATH-500": 8, "GPQA Diamond": 8}  # answers to each problem
LADDER = {  # percent after each stage
    "base": (10.0, 71.8, 36.9), "mid-training": (30.0, 82.9, 42.6), "SFT": (43.3, 89.3, 48.3),
    "Rollout DPO": (50.0, 93.6, 49.0), "GRPO": (57.5, 94.6, 52.0),
}
RERUN = {"this model": (48.13, 91.20, 44.51), "R1-Distill-Qwen-7B": (53.70, 93.03, 47.85)}
MOST_SAMPLES = 64


class Score(NamedTuple):
    """A printed score in percent. samples: of each problem; of the paper's, the fewest that give this value."""

    percent: float
    problems: int
    samples: int

    @property
    def evaluation(self) -> float:
        """The largest variance that sampling can give it, a share squared: all problems equally hard."""
        share = self.percent / 100
        return share * (1 - share) / (self.problems * self.samples)


class Reading(NamedTuple):
    """A printed difference, in points, with the standard deviations (points) of what it may be by chance: evaluation
    alone, at most; and with the seeds of a pipeline like ours, None without its components. z: the difference over
    each.
    """

    what: str
    benchmark: str
    difference: float
    evaluation: float
    with_seeds: float | None

    @property
    def z_evaluation(self) -> float:
        return abs(self.difference) / self.evaluation

    @property
    def z_seeds(self) -> float | None:
        return None if self.with_seeds is None else abs(self.difference) / self.with_seeds


def fewest_samples(percent: float, problems: int) -> int:
    """How many samples of each problem, at least, give a mean that is printed as `percent` with one decimal; at most
    MOST_SAMPLES, where no smaller number does.
    """
    for samples in range(1, MOST_SAMPLES):
        answers = problems * samples
        right = round(percent / 100 * answers)
        if abs(100 * right / answers - percent) < 0.05 + 1e-9:
            return samples
    return MOST_SAMPLES


def readings(parts: ProblemParts | None = None) -> list[Reading]:
    """Every stage of the paper's ladder against the one before, the final model against its re-run, and in the re-run
    against R1-Distill-Qwen-7B. parts: of our world, of its last stage.
    """
    found = []
    for place, (benchmark, problems) in enumerate(PROBLEMS.items()):
        paper = {stage: Score(row[place], problems, fewest_samples(row[place], problems))
                 for stage, row in LADDER.items()}
        again = {model: Score(row[place], problems, RERUN_SAMPLES[benchmark]) for model, row in RERUN.items()}
        stages = list(paper)
        for before, stage in zip(stages, stages[1:], strict=False):
            found.append(_reading(f"{stage} over {before}", benchmark, paper[stage], paper[before], parts, (1, 0)))
        found.append(_reading("re-run of the final model", benchmark, again["this model"], paper["GRPO"], None, (0, 0)))
        found.append(_reading("re-run: this model over R1-Distill-Qwen-7B", benchmark, again["this model"],
                              again["R1-Distill-Qwen-7B"], parts, (2, 2)))
    return found


def _reading(
    what: str, benchmark: str, a: Score, b: Score, parts: ProblemParts | None, seeds: tuple[int, int]
) -> Reading:
    """seeds: how often a training and a chain vary in the difference."""
    evaluation = a.evaluation + b.evaluation
    with_seeds = None
    if parts is not None:
        ours = parts.variances(a.problems, 1)
        with_seeds = 100 * math.sqrt(evaluation + seeds[0] * ours.training + seeds[1] * ours.chain)
    return Reading(what, benchmark, a.percent - b.percent, 100 * math.sqrt(evaluation), with_seeds)


def table(parts: ProblemParts | None = None) -> list[list[str]]:
    """Header and a line for each reading, in points. A difference within two standard deviations is one that chance
    gives in one of twenty tables without any.
    """
    lines = [["the paper's", "on", "points", "sd, evaluation at most", "difference over it", "sd, with seeds like ours",
              "difference over it"]]
    for one in readings(parts):
        seeds = ("–", "–") if one.z_seeds is None else (f"{one.with_seeds:.1f}", f"{one.z_seeds:.1f}")
        lines.append([one.what, one.benchmark, f"{one.difference:+.1f}", f"{one.evaluation:.1f}",
                      f"{one.z_evaluation:.1f}", *seeds])
    return lines
