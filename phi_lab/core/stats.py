"""How sure may we be? Intervals for accuracies, pass@k, and tests for paired runs.

The idea: an accuracy without an interval is a rumour, and samples of one problem are not
independent: eight answers to the same sum say less than eight answers to eight sums. So a
benchmark sampled k times a problem gets a Wilson interval for its *effective* sample size.
A claim about a recipe has a seed for its unit: pair the runs by seed, use `paired_t`, and
correct with `holm` when several arms are compared; `detectable_effect` says how large a
difference so many runs would have shown. `mcnemar` describes two runs of one seed.

The paper reports pass@1 without intervals; everything here is this project's addition.
Counts and shares are plain Python numbers; nothing here draws random numbers.

Try it:  python -c "from phi_lab.core.stats import wilson; print(wilson(13, 30))"
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mpmath
import numpy as np

ALPHA, POWER = 0.05, 0.8  # a test's size, and the chance with which "detectable" means that a difference is seen


def wilson(correct: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval for `correct` of `n` independent trials: (low, high) in [0, 1].

    `z` is the normal quantile (1.96 for 95 %). Both counts may be fractions, so that an effective
    sample size can be used. Without trials nothing is known: (0.0, 1.0).
    Raises ValueError unless 0 <= correct <= n. Source: Wilson 1927, JASA 22:209.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"need 0 <= correct <= n, got correct={correct}, n={n}")
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not push an interval off its own estimate at 0 % and 100 %.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def effective_samples(counts: Sequence[int], k: int) -> float:
    """How many independent samples `len(counts) * k` clustered ones are worth.

    `counts[i]` is how many of the k samples of problem i were right. The mean of the problems'
    shares has variance s²/m (s² between problems, m of them); p(1-p) divided by it is the size of
    an independent sample that would be as precise. The result is clipped to [m, m*k]. All right
    or all wrong shows no spread at all, and then the cautious end, m, is taken.
    Raises ValueError when a count is outside 0..k or k < 1. Source: Kish 1965 (design effect).
    """
    right = np.asarray(counts, dtype=float)
    if k < 1 or np.any((right < 0) | (right > k)):
        raise ValueError(f"every count must lie in 0..k, with k >= 1 (k={k})")
    problems = len(right)
    if problems < 2:
        return float(problems)
    share = float(right.mean()) / k
    variance_of_mean = float((right / k).var(ddof=1)) / problems
    if share in (0.0, 1.0):
        return float(problems)
    if variance_of_mean == 0.0:
        return float(problems * k)
    return min(max(share * (1 - share) / variance_of_mean, float(problems)), float(problems * k))


def clustered_wilson(counts: Sequence[int], k: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson interval for the mean of k samples on each of `len(counts)` problems: (low, high).

    `counts[i]` is how many of problem i's k samples were right. Uses `effective_samples`; with
    k = 1 this is the ordinary Wilson interval. No problems: (0.0, 1.0). Raises ValueError as
    `effective_samples` does.
    """
    effective = effective_samples(counts, k)
    if effective == 0:
        return 0.0, 1.0
    return wilson(sum(counts) / (len(counts) * k) * effective, effective, z)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that k samples hold a right one, from n samples with c right.

    1 - C(n-c, k) / C(n, k), in exact integers until the last division. Average it over problems.
    Raises ValueError unless 0 <= c <= n and 1 <= k <= n. Source: arXiv 2107.03374, equation 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"need 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


class PairedT(NamedTuple):
    """Mean of a - b, its 95 % interval, and the two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float


def _t_tails(t: float, freedom: int) -> float:
    """P(|T| > |t|) for Student's t: the regularised incomplete beta I_x(v/2, 1/2), x = v/(v+t²)."""
    x = freedom / (freedom + t * t)
    return float(mpmath.betainc(freedom / 2, 0.5, 0, x, regularized=True))


@functools.cache
def t_quantile(freedom: int, level: float = 0.95) -> float:
    """The t that |T| stays below with chance `level` (for 95 %: 12.706 at freedom 1, 1.96 at oo).

    Raises ValueError unless freedom >= 1 and 0 < level < 1.
    """
    if freedom < 1 or not 0 < level < 1:
        raise ValueError(f"need freedom >= 1 and 0 < level < 1, got {freedom}, {level}")
    return _smallest(lambda t: _t_tails(t, freedom) <= 1 - level)


def _smallest(holds: Callable[[float], bool], halvings: int = 60) -> float:
    """The smallest positive number for which `holds`, which is false below it and true above."""
    low, high = 0.0, 1.0
    while not holds(high):
        high *= 2
    for _ in range(halvings):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def paired_t(a: Sequence[float], b: Sequence[float]) -> PairedT:
    """Paired t-test of a against b, matched by position (a seed each): see `PairedT`.

    When every difference is the same there is no spread to judge by: the interval has no width
    and p is 1.0 (no difference) or 0.0. Raises ValueError for unequal lengths, fewer than two
    pairs, or values that are not finite. Source: Student 1908, Biometrika 6:1.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"need two equally long lists of at least 2, got {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if not np.isfinite(differences).all():
        raise ValueError("every value must be a finite number")
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    if error == 0.0:
        return PairedT(mean, mean, mean, 1.0 if mean == 0.0 else 0.0)
    reach = t_quantile(len(differences) - 1) * error
    return PairedT(mean, mean - reach, mean + reach, _t_tails(mean / error, len(differences) - 1))


def prediction_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Where one new value falls with chance `level`, if it comes as `values` did: (low, high).

    mean ± t s sqrt(1 + 1/n) for n independent, normally distributed values with sample deviation s
    and n - 1 degrees of freedom. Wider than the interval of the mean, as it also holds the spread
    of the new value. Raises ValueError for fewer than two values, values that are not finite, and
    a level outside (0, 1). Source: Hahn and Meeker 1991, Statistical Intervals, chapter 4.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(f"need at least 2 finite values, got {list(values)}")
    reach = t_quantile(len(sample) - 1, level) * float(sample.std(ddof=1)) * math.sqrt(1 + 1 / len(sample))
    return float(sample.mean()) - reach, float(sample.mean()) + reach


def power_of_t(shift: float, freedom: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided t-test with `freedom` degrees of freedom has p < alpha, where t is
    noncentral with `shift`: the true difference over the true standard error of its estimate.

    Given the sample deviation, s times the true one, the mean is normal: P(|Z + shift| > t s),
    integrated over the density of s by the midpoint rule (error below 1e-5). Raises ValueError
    unless freedom >= 1 and 0 < alpha < 1. Source: Johnson, Kotz and Balakrishnan 1995, Continuous
    Univariate Distributions 2, chapter 31.
    """
    critical = t_quantile(freedom, 1 - alpha)
    width = (1 + 12 / math.sqrt(2 * freedom)) / 2000
    s = (np.arange(2000) + 0.5) * width
    log_density = (
        math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
        + (freedom - 1) * np.log(s) - freedom * s * s / 2
    )
    beyond = [
        (math.erfc((critical * x - shift) / 2**0.5) + math.erfc((critical * x + shift) / 2**0.5)) / 2 for x in s
    ]
    return float(np.exp(log_density) @ beyond * width)


def power_of_paired_t(effect: float, n: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided `paired_t` of n pairs has p < alpha, where the true mean difference
    is `effect` standard deviations of a difference: `power_of_t`.

    Raises ValueError unless n >= 2 and 0 < alpha < 1.
    """
    if n < 2 or not 0 < alpha < 1:
        raise ValueError(f"need n >= 2 and 0 < alpha < 1, got {n}, {alpha}")
    return power_of_t(effect * math.sqrt(n), n - 1, alpha)


def detectable_effect(sd: float, n: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest true mean difference that a two-sided paired t-test of n pairs finds (p < alpha)
    with chance `power`, in the unit of `sd`, the standard deviation of the differences.

    Raises ValueError for a negative `sd`, a power that is not between alpha and 1, and as
    `power_of_paired_t` does.
    """
    if sd < 0 or not alpha < power < 1:
        raise ValueError(f"need sd >= 0 and alpha < power < 1, got sd={sd}, power={power}, alpha={alpha}")
    if n < 2:
        raise ValueError(f"need n >= 2, got {n}")
    return sd * noncentrality(n - 1, power, alpha) / math.sqrt(n)


@functools.cache
def noncentrality(freedom: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """The shift, in standard errors, at which a two-sided t-test has p < alpha with chance `power`; 2.8 with many
    degrees of freedom, for 80 % at 5 %. Raises ValueError as `power_of_t` does.
    """
    return _smallest(lambda shift: power_of_t(shift, freedom, alpha) >= power, halvings=40)


def f_tail(f: float, top: float, bottom: float) -> float:
    """P(F > f) for Fisher's F with `top` and `bottom` degrees of freedom: the regularised incomplete
    beta I_x(bottom/2, top/2), x = bottom / (bottom + top f). Raises ValueError for f < 0.
    """
    if not f >= 0:
        raise ValueError(f"need f >= 0, got {f}")
    return float(mpmath.betainc(bottom / 2, top / 2, 0, bottom / (bottom + top * f), regularized=True))


@functools.cache
def f_quantile(tail: float, top: float, bottom: float) -> float:
    """The f that F exceeds with chance `tail` (5 % at 1 and 10 degrees of freedom: 4.965). Raises
    ValueError unless 0 < tail < 1.
    """
    if not 0 < tail < 1:
        raise ValueError(f"need 0 < tail < 1, got {tail}")
    return _smallest(lambda f: f_tail(f, top, bottom) <= tail)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Exact two-sided McNemar p-value for right/wrong answers of two models to the same items.

    Only items on which the two disagree count; under "no difference" each is a fair coin.
    Without any, p = 1.0. Raises ValueError for unequal lengths. Source: McNemar 1947.
    """
    if len(a) != len(b):
        raise ValueError(f"need one answer a model for every item, got {len(a)} and {len(b)}")
    only_a = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    total = only_a + only_b
    tail = sum(math.comb(total, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**total)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where the value is below alpha.

    Keeps the chance of any false alarm among all the tests below alpha, whatever their
    dependence. Raises ValueError for a p outside [0, 1]. Source: Holm 1979, Scand. J. Stat. 6:65.
    """
    if any(not 0 <= p <= 1 for p in ps):
        raise ValueError("every p-value must lie in [0, 1]")
    adjusted, floor = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = floor
    return adjusted
