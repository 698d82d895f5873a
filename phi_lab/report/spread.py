"""How much a score spreads if it is measured on more or fewer problems and samples than here, with an interval.

A level moves a score in two ways: by what moves all problems alike, and by what is other for each problem, which a mean
over n problems has divided by n. Both are told apart by crossing problems with chains and with trainings (method of
moments). What sampling adds is p (1 - p) over the number of answers; so many answers tell it more exactly than the two
evaluations of each training do.

Intervals are generalised ones, as in `components.py`: expectations of the mean squares are drawn, and sampling and the
parts by problem with the covariance that leaving out chains and groups of problems gives (jackknife). They are other
for each protocol: on 30 problems nearly all of a variance is sampling, which is known well; on 1,000 problems with many
samples nearly all of it is the training, of which few were seen.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from phi_lab.report.components import DRAWS, MIDDLE, SEED, TOP, Anova, Nest, cells, nested_anova
from phi_lab.report.power import Variances

GROUPS = 25  # of problems, of which one after the other is left out


class ProblemParts(NamedTuple):
    """Variances of one answer to one problem and of what is common to all problems. sampling: of one answer, p (1 - p)
    in the mean over problems. training, chain: what moves all problems alike. training_problem, chain_problem: what of
    a level is other for each problem; a score has it over the number of problems. Numbers, or an array of draws.
    """

    sampling: float
    training: float
    training_problem: float
    chain: float
    chain_problem: float

    def variances(self, problems: int, samples: int) -> Variances:
        """The components of one score over `problems` problems with `samples` answers each."""
        return Variances(self.chain + self.chain_problem / problems, self.training + self.training_problem / problems,
                         self.sampling / (problems * samples))


class Spread(NamedTuple):
    """The spread of a score after one stage. problems, samples: of the scores it was measured on. drawn: parts that
    these data are compatible with, each (DRAWS,).
    """

    parts: ProblemParts
    drawn: ProblemParts
    problems: int
    samples: int

    def variances(self, problems: int, samples: int) -> Variances:
        """The components of one score over so many problems with so many answers each."""
        return self.parts.variances(problems, samples)

    def factors(self, paired: bool, problems: int, samples: int) -> tuple[float, float]:
        """The interval (95 %) of the variance of a difference of two scores, as multiples of its estimate."""
        estimate = self.variances(problems, samples).of_difference(paired)
        if estimate == 0.0:
            return 1.0, 1.0
        low, high = np.quantile(self.drawn.variances(problems, samples).of_difference(paired), (0.025, 0.975))
        return min(1.0, float(low / estimate)), max(1.0, float(high / estimate))

    def deviation(self, level: str, problems: int) -> tuple[float, float, float]:
        """The standard deviation that `level` ("chain", "training") adds to a score on so many problems, a share, with
        the ends of its interval (95 %).
        """
        drawn = getattr(self.drawn.variances(problems, 1), level)
        low, high = np.quantile(drawn, (0.025, 0.975)) ** 0.5
        return getattr(self.variances(problems, 1), level) ** 0.5, float(low), float(high)


def measured(rows: Sequence[dict], nest: Nest) -> Spread:
    """The spread of the scores of a nest. Raises UserError as `components.cells` does."""
    _, counts, samples = cells(rows, nest)
    return of_counts(counts, samples)


def of_counts(counts: np.ndarray, samples: int) -> Spread:
    """counts: right answers of `samples` (top units, trainings, evaluations, problems)."""
    anova, problems = nested_anova(counts.mean(3) / samples), counts.shape[-1]
    crossed, drawn = jackknife(lambda some: by_problem(some, samples), counts)
    return Spread(_parts(anova, np.array(anova.squares), crossed, problems, samples),
                  _parts(anova, anova.drawn_squares(), drawn, problems, samples), problems, samples)


def jackknife(estimate: Callable[[np.ndarray], Sequence[float]], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `estimate` says of `values` (chains, ..., problems), k numbers, none below 0, and (k, DRAWS) what these may
    be: normal, with the covariances that leaving out one chain, and one group of problems, after the other gives.
    """
    found, chains, problems = np.array(estimate(values)), len(values), values.shape[-1]
    groups, parts = min(GROUPS, problems), []
    if problems > 2:
        parts.append([estimate(values[..., np.arange(problems) % groups != group]) for group in range(groups)])
    if chains > 2:
        parts.append([estimate(np.delete(values, chain, 0)) for chain in range(chains)])
    covariance = np.zeros((len(found), len(found)))
    for without in parts:
        off = np.array(without) - np.mean(without, 0)
        covariance += (len(off) - 1) / len(off) * off.T @ off
    drawn = np.random.default_rng(SEED).multivariate_normal(found, covariance, DRAWS, method="eigh")
    return np.maximum(0.0, found), np.maximum(0.0, drawn).T


def _parts(anova: Anova, squares: np.ndarray, crossed: np.ndarray, problems: int, samples: int) -> ProblemParts:
    """The parts for mean squares (3, ...) and for sampling and both parts by problem (3, ...); none below 0."""
    sampling, training_problem, chain_problem = crossed
    evaluation = sampling / (problems * samples)
    training = (squares[MIDDLE] - evaluation) / anova.evaluations - training_problem / problems
    chain = (squares[TOP] - squares[MIDDLE]) / (anova.trainings * anova.evaluations) - chain_problem / problems
    found = (sampling, np.maximum(0.0, training), training_problem, np.maximum(0.0, chain), chain_problem)
    return ProblemParts(*(one if squares.ndim > 1 else float(one) for one in found))


def by_problem(counts: np.ndarray, samples: int) -> tuple[float, float, float]:
    """Variances of sampling one answer, and of what a training and a chain are for each problem by itself: unbiased, so
    the last two may be negative.
    """
    tops, trainings, evaluations, _ = counts.shape
    answers = evaluations * samples
    right = counts.sum(2)
    sampling = float((right * (answers - right)).mean()) / (answers * (answers - 1))
    shares = right / answers  # (top units, trainings, problems)
    mean = shares.mean(1)
    of_training = interaction(shares - mean[:, None]) * trainings / (trainings - 1)
    of_chain = interaction(mean - mean.mean(0)) * tops / (tops - 1) - of_training / trainings
    return sampling, of_training - sampling / answers, of_chain


def interaction(deviations: np.ndarray) -> float:
    """Mean square over problems (the last axis) of deviations from a unit's mean and from a problem's."""
    centred = deviations - deviations.mean(-1, keepdims=True)
    problems = deviations.shape[-1]
    return float((centred**2).mean() * problems / (problems - 1))
