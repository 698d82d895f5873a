"""The paper's own differences, and its authors' later re-run: what evaluation alone allows, and what seeds would add.

The paper prints one number for each stage, without an interval or a number of trainings. Two things can be said of its
differences. **Evaluation**: answers are sampled, so the same weights give other scores; the variance of a score is at
most p (1 - p) / (problems x samples), and less where some problems are always and others never solved. How often the
paper sampled is unknown; the printed value says how often at least (57.5 % of 30 problems takes four samples each). So
the standard deviation is at most what is said, and a difference is at least as many of them. Beside it stands what that
would be if all of the paper's values on a benchmark had equally many samples, the fewest that give each of them: more
likely, but supposed. **Pipeline**: another seed
gives another model. How much is not known for the paper, and nobody has measured it there; here the spread of our own
steps over chains stands in for it (`steps.py`), scaled to the number of problems. It is that of a model with less than
a million weights on arithmetic, so this says what a difference would be worth *if* seeds moved theirs as they move
ours, and no more.

Same weights differ by evaluation only, and by the protocol: what other models moved between both measurements stands
beside it. A stage differs from the one before it by that step's spread, two models by two whole pipelines; what their
bases add is in none of it. Values: shared notes on arXiv 2504.21233 (second-hand, [S2], [P]; +3.2 and +7.7 on MATH-500
are in the abstract, [V]) and the card of Phi-4-mini-flash-reasoning, arXiv 2507.06607 ([P]); docs/glossary.md explains
the marks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from phi_lab.report.steps import Step

PROBLEMS = {"AIME 2024": 30, "MATH-500": 500, "GPQA Diamond": 198}
RERUN_SAMPLES = {"AIME 2024": 64, "MATH-500": 8, "GPQA Diamond": 8}  # answers to each problem
LADDER = {  # percent after each stage
    "base": (10.0, 71.8, 36.9), "mid-training": (30.0, 82.9, 42.6), "SFT": (43.3, 89.3, 48.3),
    "Rollout DPO": (50.0, 93.6, 49.0), "GRPO": (57.5, 94.6, 52.0),
}
STAGES = {"mid-training": "mid", "SFT": "sft", "Rollout DPO": "dpo", "GRPO": "grpo"}  # what stands in for a step
OURS, QWEN, LLAMA = "this model", "R1-Distill-Qwen-7B", "R1-Distill-Llama-8B"
MODELS = {  # in the paper's table; OpenThinker's values are copied there from its own report
    OURS: LADDER["GRPO"], QWEN: (53.3, 91.4, 49.5), LLAMA: (43.3, 86.9, 47.3), "OpenThinker-7B": (31.3, 83.0, 42.4),
}
RERUN = {OURS: (48.13, 91.20, 44.51), QWEN: (53.70, 93.03, 47.85), LLAMA: (43.96, 87.48, 45.83),
         "OpenThinker-7B": (29.69, 87.25, 41.60)}
MOST_SAMPLES = 64


class Score(NamedTuple):
    """A printed score in percent. samples: of each problem."""

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
    alone, at most; and with seeds that move it as ours do, with the ends of its interval (95 %), None for the same
    weights and without a run of ours. equally: the first and the middle of the second, where all of the paper's values
    on the benchmark have as many samples as each other.
    """

    what: str
    benchmark: str
    difference: float
    evaluation: float
    with_seeds: tuple[float, float, float] | None
    equally: tuple[float, float | None]

    @property
    def z_evaluation(self) -> float:
        return abs(self.difference) / self.evaluation

    @property
    def z_seeds(self) -> float | None:
        return None if self.with_seeds is None else abs(self.difference) / self.with_seeds[0]


def fewest_samples(percents: Sequence[float], problems: int) -> int:
    """How many samples of each problem, at least, give means that are printed as each of `percents` with one decimal;
    at most MOST_SAMPLES, where no smaller number does.
    """
    for samples in range(1, MOST_SAMPLES):
        answers = problems * samples
        if all(abs(100 * round(percent / 100 * answers) / answers - percent) < 0.05 + 1e-9 for percent in percents):
            return samples
    return MOST_SAMPLES


def values_of(benchmark: str) -> list[float]:
    """What the paper measured on a benchmark itself: its ladder, and the two models that it compares with."""
    index = list(PROBLEMS).index(benchmark)
    return sorted({values[index] for values in (*LADDER.values(), MODELS[QWEN], MODELS[LLAMA])})


def readings(steps: Mapping[str, Step] | None = None) -> list[Reading]:
    """Every stage of the paper's ladder against the one before, the final model against two others in the paper and one
    in the re-run, and each model's re-run against the paper. steps: of our world, by stage, and "whole" of all stages.
    """
    found = []
    for stage, before in zip(list(LADDER)[1:], LADDER, strict=False):
        found += _readings(f"{stage} over {before}", LADDER[stage], LADDER[before], steps, [STAGES[stage]])
    for rival in (QWEN, LLAMA):
        found += _readings(f"{OURS} over {rival}", MODELS[OURS], MODELS[rival], steps, ["whole"] * 2)
    found += _readings(f"re-run: {OURS} over {QWEN}", RERUN[OURS], RERUN[QWEN], steps, ["whole"] * 2, True, True)
    for model, values in RERUN.items():
        found += _readings(f"re-run of {model} over its first value", values, MODELS[model], None, [], True)
    return found


def _readings(
    what: str, a: tuple[float, ...], b: tuple[float, ...], steps: Mapping[str, Step] | None, varies: Sequence[str],
    a_again: bool = False, b_again: bool = False,
) -> list[Reading]:
    """Of each benchmark. varies: the steps whose spread is in the difference. a_again, b_again: which of both is
    of the re-run.
    """
    def points(square: float) -> float:
        return 100 * math.sqrt(square)

    found = []
    for (benchmark, problems), first, second in zip(PROBLEMS.items(), a, b, strict=True):
        pair = ((first, a_again), (second, b_again))
        at_most, equal = (sum(_score(value, benchmark, again, alike).evaluation for value, again in pair)
                          for alike in (False, True))
        seeds = None if steps is None else [  # variances: of the middle, and of both ends
            sum(ends) for ends in zip(*(steps[step].variance(problems) for step in varies), strict=True)]
        middle, low, high = (None, None, None) if seeds is None else (points(at_most + one) for one in seeds)
        found.append(Reading(
            what, benchmark, first - second, points(at_most), None if seeds is None else (middle, low, high),
            (points(equal), None if seeds is None else points(equal + seeds[0]))))
    return found


def _score(percent: float, benchmark: str, again: bool, alike: bool) -> Score:
    """again: of the re-run, whose number of samples is known. alike: with as many as the paper's other values have."""
    own, problems = values_of(benchmark), PROBLEMS[benchmark]
    values = own if alike and percent in own else [percent]
    return Score(percent, problems, RERUN_SAMPLES[benchmark] if again else fewest_samples(values, problems))


def table(steps: Mapping[str, Step] | None = None) -> list[list[str]]:
    """Header and a line for each reading, in points. A difference beyond two standard deviations is one that chance
    gives in one of twenty rows without any; nothing is corrected for the number of rows. Both standard deviations are
    the largest that sampling allows, and the interval holds what is not known of our steps alone.
    """
    samples = ", ".join(f"{name} {fewest_samples(values_of(name), problems)}" for name, problems in PROBLEMS.items())
    lines = [["the paper's", "on", "points", "sd, evaluation at most", "difference over it",
              "sd at most, with seeds like ours", "difference over it",
              f"both ratios, if all the paper's values on a benchmark have equally many answers a problem ({samples})"]]
    for one in readings(steps):
        seeds = ("–", "–")
        if one.with_seeds is not None:
            middle, low, high = one.with_seeds
            seeds = (f"{middle:.1f} [{low:.1f}, {high:.1f}]", f"{one.z_seeds:.1f}")
        equal = "; ".join(f"{abs(one.difference) / sd:.1f}" for sd in one.equally if sd is not None)
        lines.append([one.what, one.benchmark, f"{one.difference:+.1f}", f"{one.evaluation:.1f}",
                      f"{one.z_evaluation:.1f}", *seeds, equal])
    return lines
