"""What a difference is worth: the smallest one that n seeds and m samples show, and how many they must be to see d.

A score is the mean of `samples` answers to each of `problems` questions. Three things move it: what came before the
stage (the chain), the stage's own seed, and which answers were sampled. `Variances` holds what each adds to the
variance of one score; `components.py` measures them. Two recipes are compared over seeds by a two-sided t-test at 5 %,
and a difference is seen if that has a chance of 80 %.

- unpaired: n scores of each recipe, each of a chain of its own; 2 n - 2 degrees of freedom
- paired: both recipes start from the same n chains, with stage seeds of their own. What the chain adds then drops out,
  provided that it adds the same to both; where recipes gain differently from different chains, more seeds are needed
  than said here. Recipes that share stage seeds, too, may need fewer

More samples or problems shrink the evaluation's part alone, and more problems also what of a seed is luck with single
problems. The rest only more seeds shrink: that is why a table of seeds has a floor.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from phi_lab.core import stats
from phi_lab.core.stats import ALPHA, POWER

MOST = 1_000  # seeds of each recipe: beyond these a table says "more"


class Variances(NamedTuple):
    """What each level adds to the variance of one score, as squares of shares (0.01 is a standard deviation of ten
    points).
    """

    chain: float
    training: float
    evaluation: float

    def of_difference(self, paired: bool) -> float:
        """The variance of the difference of two scores, one of each recipe."""
        return 2 * (self.training + self.evaluation + (0.0 if paired else self.chain))


class Needed(NamedTuple):
    """Seeds of each recipe: the smallest number, and those at the ends of the interval of the variances. None: more
    than MOST.
    """

    seeds: int | None
    low: int | None
    high: int | None

    def __str__(self) -> str:
        number, low, high = ("more" if one is None else f"{one:,}" for one in self)
        return number if low == number == high else f"{number} [{low}, {high}]"


def power_of(difference: float, variances: Variances, seeds: int, paired: bool, alpha: float = ALPHA) -> float:
    """Chance that `seeds` scores of each recipe show a true `difference` of their means (a share) at p < alpha.

    Raises ValueError for fewer than two seeds.
    """
    if seeds < 2:
        raise ValueError(f"need two seeds or more, got {seeds}")
    error = (variances.of_difference(paired) / seeds) ** 0.5
    if error == 0.0:
        return float(difference != 0.0)
    return stats.power_of_t(abs(difference) / error, _freedom(seeds, paired), alpha)


def detectable(
    variances: Variances, seeds: int, paired: bool, power: float = POWER, alpha: float = ALPHA
) -> float:
    """The smallest true difference (a share) that `seeds` scores of each recipe show with chance `power`.

    Raises ValueError for fewer than two seeds, and for a power that is not between alpha and 1.
    """
    if seeds < 2 or not alpha < power < 1:
        raise ValueError(f"need two seeds or more and alpha < power < 1, got {seeds}, {alpha} and {power}")
    return stats.noncentrality(_freedom(seeds, paired), power, alpha) * (variances.of_difference(paired) / seeds) ** 0.5


def seeds_needed(
    difference: float, variances: Variances, paired: bool, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """The smallest number of seeds of each recipe that show a true `difference` (a share, not 0) with chance `power`;
    None where it is more than MOST. Raises ValueError for a difference of 0, and as `detectable` does.
    """
    if difference == 0.0 or not alpha < power < 1:
        raise ValueError(f"need a difference and alpha < power < 1, got {difference}, {alpha} and {power}")

    def enough(seeds: int) -> bool:
        return power_of(difference, variances, seeds, paired, alpha) >= power

    least = variances.of_difference(paired) * (_normal_shift(power, alpha) / difference) ** 2
    seeds = max(2, math.floor(least))  # and only a few more with t
    while seeds <= MOST and not enough(seeds):
        seeds += 1
    return seeds if seeds <= MOST else None


def needed(
    difference: float, variances: Variances, paired: bool, factors: tuple[float, float] = (1.0, 1.0)
) -> Needed:
    """`seeds_needed` with its interval. factors: the ends of the interval of the difference's variance, as multiples
    of it.
    """

    def seeds(factor: float) -> int | None:
        return seeds_needed(difference, Variances(*(factor * one for one in variances)), paired)

    return Needed(seeds(1.0), *map(seeds, factors))


def needed_table(
    protocols: Sequence[tuple[str, Variances, tuple[float, float]]], differences: Sequence[float], paired: bool,
) -> list[list[str]]:
    """Header and a line for each difference (shares, shown in points): the seeds of each recipe that see it. protocols:
    what heads a column, such as "500 x 4"; its variances; the ends of the interval of the difference's variance, as
    multiples of it.
    """
    lines = [["to see", *(name for name, *_ in protocols)]]
    for difference in differences:
        cells = (str(needed(difference, variances, paired, factors)) for _, variances, factors in protocols)
        lines.append([f"{100 * difference:g} points", *cells])
    return lines


def detectable_table(variances: Variances, seeds: Sequence[int]) -> list[list[str]]:
    """Header and a line for each number of seeds: the smallest difference that is seen, in points."""
    return [["seeds of each recipe", "paired", "unpaired"], *(
        [f"{count}", *(f"{100 * detectable(variances, count, paired):.1f}" for paired in (True, False))]
        for count in seeds)]


def _freedom(seeds: int, paired: bool) -> int:
    return seeds - 1 if paired else 2 * seeds - 2


def _normal_shift(power: float, alpha: float) -> float:
    """At most the noncentrality that a t-test needs; below a power of a half the other tail counts, too."""
    normal = NormalDist()
    return 0.0 if power < 0.5 else normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
