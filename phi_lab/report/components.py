"""Components of variance: how much of the spread of a score is the chain's, the stage's own seed's, the evaluation's.

Scores are nested: chains, in each of them trainings of one stage from the chain's own previous model, of each training
evaluations with other sampling seeds on the same problems. Balanced nested analysis of variance (method of moments;
Searle, Casella and McCulloch 1992, chapter 3) divides their spread; a component that comes out negative is shown as 0.
Whether a level adds anything at all is an F-test over the level below it, with Holm's correction over all of them.

Intervals are generalised confidence intervals (Weerahandi 1993; Hannig, Iyer and Patterson 2006): a mean square times
its degrees of freedom over its expectation is chi-squared, so expectations are drawn from that and the components are
computed from the draws. Unlike Satterthwaite's they hold for differences of mean squares and at zero.

The problems are the same for all scores. So what a benchmark of other problems would change is no part of these levels;
`spread.py` says what of each level is luck with single problems, and would shrink with more of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.stats import ALPHA, POWER
from phi_lab.report.contrasts import accuracy, by_seed
from phi_lab.report.ladder_rows import STAGE_TITLES
from phi_lab.report.power import Variances

DRAWS, SEED = 20_000, 0  # of an interval; the same ones every time
TOP, MIDDLE, BOTTOM = range(3)


@dataclass(frozen=True)
class Nest:
    """The scores of one stage. arms: of each of its trainings, the arms that evaluate it. levels: from above, what the
    seeds of the experiment, its trainings and its evaluations are.
    """

    name: str
    arms: tuple[tuple[str, ...], ...]
    levels: tuple[str, str, str] = ("chain", "training", "evaluation")

    @property
    def title(self) -> str:
        """The stage as a page names it."""
        return STAGE_TITLES.get(self.name, self.name)

    @property
    def of_chains(self) -> bool:
        """Whether the highest level is the chain: a few bases say too little to plan an experiment with."""
        return self.levels[TOP] == "chain"

    @property
    def words(self) -> str:
        """The first claim: the highest level adds something to what the one below it does."""
        return f"after {self.title}, {self.levels[0]}s add to what {self.levels[1]}s in one of them do"


class Anova(NamedTuple):
    """Mean squares from above (of the top level, of trainings in it, of evaluations in these) with their degrees of
    freedom, and how many trainings a top unit and evaluations a training have.
    """

    squares: tuple[float, float, float]
    freedom: tuple[int, int, int]
    trainings: int
    evaluations: int

    def components(self) -> np.ndarray:
        """(3,) variances from above, as the method of moments has them: any but the last may be negative."""
        return self._solve(np.array(self.squares))

    def drawn_squares(self) -> np.ndarray:
        """(3, DRAWS) expectations of the mean squares that these data are compatible with."""
        return drawn_expectations(self.squares, self.freedom)

    def draws(self) -> np.ndarray:
        """(3, DRAWS) the components for such expectations, none below 0."""
        return np.maximum(0.0, self._solve(self.drawn_squares()))

    def _solve(self, squares: np.ndarray) -> np.ndarray:
        top, middle, bottom = squares
        return np.array([(top - middle) / (self.trainings * self.evaluations), (middle - bottom) / self.evaluations,
                         bottom])

    def variances(self) -> Variances:
        """The components of one score, none below 0."""
        return Variances(*np.maximum(0.0, self.components()).tolist())


def drawn_expectations(squares: Sequence[float], freedom: Sequence[int]) -> np.ndarray:
    """(k, DRAWS) expectations that k mean squares are compatible with: each over its expectation, times its degrees of
    freedom, is chi-squared.
    """
    rng = np.random.default_rng(SEED)
    return np.array([square * free / rng.chisquare(free, DRAWS) for square, free in zip(squares, freedom, strict=True)])


def sd_words(sd: float, low: float, high: float) -> str:
    """A standard deviation (a share) in points with its interval: "1.73 [1.10, 3.25]"."""
    return f"{100 * sd:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def nested_anova(scores: np.ndarray) -> Anova:
    """Analysis of variance of `scores` (top units, trainings, evaluations), at least two of each. Raises ValueError for
    fewer, and for values that are not finite.
    """
    if scores.ndim != 3 or min(scores.shape) < 2 or not np.isfinite(scores).all():
        raise ValueError(f"need finite scores of at least 2 x 2 x 2, got the shape {scores.shape}")
    tops, trainings, evaluations = scores.shape
    of_training, of_top = scores.mean(2), scores.mean((1, 2))
    squares = (
        trainings * evaluations * float(of_top.var(ddof=1)),
        evaluations * float(of_training.var(1, ddof=1).mean()),
        float(scores.var(2, ddof=1).mean()),
    )
    return Anova(squares, (tops - 1, tops * (trainings - 1), tops * trainings * (evaluations - 1)), trainings,
                 evaluations)


class Level(NamedTuple):
    """A level of a nest. sd: the standard deviation that it adds to one score, a share, with its 95 % interval. share:
    its part, 0 to 1, of the variance of one score, likewise. negative: its variance was estimated below 0. f, p_holm
    and detectable (the smallest sd seen with 80 % power at Holm's strictest level): of its test over the level below;
    None for the lowest.
    """

    nest: Nest
    name: str
    units: int  # at the top
    sd: float
    sd_low: float
    sd_high: float
    share: float
    share_low: float
    share_high: float
    negative: bool
    freedom: int
    f: float | None = None
    p_holm: float | None = None
    detectable: float | None = None

    @property
    def verdict(self) -> str:
        """"supported": the level moves the score; else "no difference shown". A variance has no other direction."""
        return "supported" if self.p_holm is not None and self.p_holm < ALPHA else "no difference shown"


def cells(rows: Sequence[dict], nest: Nest) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (top units, trainings, evaluations), right answers to each problem (the same, problems), and samples of a
    problem. A top unit that lacks an arm is left out: the analysis is balanced.

    Raises UserError with fewer than two, and where evaluations have other problems.
    """
    names = [name for training in nest.arms for name in training]
    units = list(by_seed(rows, names).values())
    if len(units) < 2:
        raise UserError(f"{len(units)} seeds with {', '.join(names)}: a variance between them needs two")
    found = [unit[name] for unit in units for name in names]
    measured = {(row["notes"]["problems"], len(row["notes"]["right"]), row["notes"]["samples"]) for row in found}
    scores = np.array([accuracy(row) for row in found], dtype=float)
    if len(measured) != 1 or np.isnan(scores).any():
        raise UserError(f"{names[0]}: rows of other problems, samples or protocols cannot be compared")
    ((_, problems, samples),) = measured
    shape = (len(units), len(nest.arms), len(nest.arms[0]))
    counts = np.array([[int(digit) for digit in row["notes"]["right"]] for row in found])
    return scores.reshape(shape), counts.reshape(*shape, problems), samples


def levels(rows: Sequence[dict], nests: Sequence[Nest]) -> list[Level]:
    """The three levels of each nest, in their order: the first is the primary one. Raises UserError as `cells` does."""
    tables = [nested_anova(cells(rows, nest)[0]) for nest in nests]
    tests = [(anova.squares[level] / anova.squares[level + 1] if anova.squares[level + 1] else np.inf,
              anova.freedom[level], anova.freedom[level + 1]) for anova in tables for level in (TOP, MIDDLE)]
    adjusted = stats.holm([stats.f_tail(f, *freedom) if np.isfinite(f) else 0.0 for f, *freedom in tests])
    found = []
    for number, (nest, anova) in enumerate(zip(nests, tables, strict=True)):
        for level in (TOP, MIDDLE, BOTTOM):
            one = _estimate(nest, anova, level)
            if level != BOTTOM:
                test = 2 * number + level
                one = one._replace(f=tests[test][0], p_holm=adjusted[test],
                                   detectable=_detectable(anova, level, ALPHA / len(tests)))
            found.append(one)
    return found


def level_words(one: Level) -> str:
    """A level's standard deviation in points with its interval; 0 where its variance was estimated below 0."""
    below = ", estimated below 0" if one.negative else ""
    return f"{sd_words(one.sd, one.sd_low, one.sd_high)}{below}"


def _estimate(nest: Nest, anova: Anova, level: int) -> Level:
    raw, drawn, variances = anova.components(), anova.draws(), anova.variances()
    low, high = np.sqrt(np.quantile(drawn[level], (0.025, 0.975)))
    total = sum(variances)
    share_low, share_high = np.quantile(drawn[level] / np.maximum(drawn.sum(0), 1e-300), (0.025, 0.975))
    return Level(nest, nest.levels[level], anova.freedom[TOP] + 1, variances[level] ** 0.5, float(low), float(high),
                 variances[level] / total if total else 0.0, float(share_low), float(share_high),
                 bool(raw[level] < 0), anova.freedom[level])


def _detectable(anova: Anova, level: int, alpha: float) -> float:
    """The smallest standard deviation of a level whose F-test has p < alpha with a chance of POWER, if the levels below
    are as they were estimated: F is then a central one times 1 + the level's part of its mean square.
    """
    top, bottom = anova.freedom[level], anova.freedom[level + 1]
    factor = stats.f_quantile(alpha, top, bottom) / stats.f_quantile(POWER, top, bottom)
    weight = anova.evaluations * (anova.trainings if level == TOP else 1)
    return float(((factor - 1) * anova.squares[level + 1] / weight) ** 0.5)
