"""Intervals cover what they promise, estimators agree with brute force and printed tables."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_lab.core import stats


def test_wilson_against_published_values():
    # Newcombe 1998, Stat. Med. 17:857, table I, method 3 (Wilson without continuity correction).
    z = 1.959964
    for correct, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert stats.wilson(correct, n, z) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_holds_its_estimate_and_mirrors(right, wrong):
    n = right + wrong
    low, high = stats.wilson(right, n)
    mirror_low, mirror_high = stats.wilson(wrong, n)
    assert 0 <= low <= high <= 1
    assert n == 0 or low <= right / n <= high
    assert low == pytest.approx(1 - mirror_high) and high == pytest.approx(1 - mirror_low)


@pytest.mark.parametrize("correct, n", [(-1, 5), (6, 5), (1, 0), (math.nan, 5)])
def test_wilson_refuses_impossible_counts(correct, n):
    with pytest.raises(ValueError):
        stats.wilson(correct, n)


def test_wilson_covers_95_percent():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        draws = rng.binomial(200, share, size=2000)
        held = [low <= share <= high for low, high in (stats.wilson(int(c), 200) for c in draws)]
        assert 0.93 <= np.mean(held) <= 0.97


def test_clustered_wilson_covers_where_the_plain_one_does_not():
    rng = np.random.default_rng(1)
    problems, k, plain, clustered = 200, 4, [], []
    for _ in range(4000):
        # Each problem has its own difficulty (mean 0.5, widely spread): a U-shaped beta.
        counts = rng.binomial(k, rng.beta(0.3, 0.3, size=problems))
        low, high = stats.wilson(int(counts.sum()), problems * k)
        plain.append(low <= 0.5 <= high)
        low, high = stats.clustered_wilson(counts, k)
        clustered.append(low <= 0.5 <= high)
    assert 0.94 <= np.mean(clustered) <= 0.96
    assert np.mean(plain) < 0.85


def test_effective_samples_at_its_two_ends():
    assert stats.effective_samples([4] * 30 + [0] * 30, 4) == pytest.approx(60, abs=1.5)  # copies
    assert stats.effective_samples([2] * 60, 4) == 240  # no spread between problems
    rng = np.random.default_rng(2)
    same_difficulty = rng.binomial(4, 0.5, size=5000)
    assert stats.effective_samples(same_difficulty, 4) == pytest.approx(20000, rel=0.06)
    assert stats.effective_samples([4] * 50, 4) == 50  # all right: cautious
    assert stats.effective_samples([], 4) == 0


@given(st.integers(1, 8).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k)))))
def test_clustered_wilson_stays_between_its_bounds(case):
    k, counts = case
    low, high = stats.clustered_wilson(counts, k)
    assert 0 <= low <= high <= 1
    if counts:
        share = sum(counts) / (len(counts) * k)
        assert low - 1e-9 <= share <= high + 1e-9
        tight = stats.wilson(share * len(counts) * k, len(counts) * k)
        wide = stats.wilson(share * len(counts), len(counts))
        assert tight[1] - tight[0] - 1e-9 <= high - low <= wide[1] - wide[0] + 1e-9


def test_clustered_wilson_with_one_sample_is_wilson():
    counts = [1, 0, 1, 1, 0, 1, 1]
    assert stats.clustered_wilson(counts, 1) == pytest.approx(stats.wilson(5, 7))
    assert stats.clustered_wilson([], 4) == (0.0, 1.0)
    assert stats.clustered_wilson([3], 4) == pytest.approx(stats.wilson(0.75, 1))
    with pytest.raises(ValueError):
        stats.clustered_wilson([5], 4)


def test_pass_at_k_against_brute_force():
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            answers = [True] * c + [False] * (n - c)
            hits = [any(chosen) for chosen in itertools.combinations(answers, k)]
            assert stats.pass_at_k(n, c, k) == pytest.approx(np.mean(hits))
    assert stats.pass_at_k(5000, 1, 2500) == pytest.approx(0.5)  # no overflow


@pytest.mark.parametrize("n, c, k", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError):
        stats.pass_at_k(n, c, k)


@pytest.mark.parametrize(
    "freedom, quantile",
    [(1, 12.7062), (2, 4.30265), (5, 2.57058), (9, 2.26216), (30, 2.04227), (1000, 1.96234)],
)
def test_t_quantiles_against_the_printed_table(freedom, quantile):
    assert stats.t_quantile(freedom) == pytest.approx(quantile, abs=5e-5)


def test_paired_t_on_students_own_sleep_data():
    # Student 1908: extra hours of sleep under two drugs, ten patients; t = -4.0621, df = 9.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    result = stats.paired_t(first, second)
    assert result == pytest.approx((-1.58, -2.4598858, -0.7001142, 0.00283289), abs=1e-6)
    turned = stats.paired_t(second, first)
    assert turned == pytest.approx((-result.mean, -result.high, -result.low, result.p))


def test_paired_t_covers_95_percent_and_its_p_is_uniform():
    rng = np.random.default_rng(3)
    results = [stats.paired_t(rng.normal(0.3, 1, 6), rng.normal(0, 1, 6)) for _ in range(400)]
    assert 0.92 <= np.mean([r.low <= 0.3 <= r.high for r in results]) <= 0.98
    null = [stats.paired_t(rng.normal(0, 1, 6), np.zeros(6)).p for _ in range(400)]
    assert 0.03 <= np.mean(np.array(null) < 0.05) <= 0.08
    assert 0.44 <= np.mean(null) <= 0.56


def test_paired_t_without_spread_and_with_bad_input():
    assert stats.paired_t([1, 2, 3], [1, 2, 3]) == (0, 0, 0, 1)
    assert stats.paired_t([2, 3, 4], [1, 2, 3]) == (1, 1, 1, 0)
    for a, b in [([1], [2]), ([1, 2], [1]), ([1, math.nan], [1, 2])]:
        with pytest.raises(ValueError):
            stats.paired_t(a, b)


def test_prediction_interval_by_hand_and_its_coverage():
    # 1..5: mean 3, s² = 2.5, t(4, 95 %) = 2.77645: 3 ± 2.77645 * sqrt(2.5 * 6/5) = 3 ± 4.80895.
    assert stats.prediction_interval([1, 2, 3, 4, 5]) == pytest.approx((-1.80895, 7.80895), abs=1e-4)
    low, high = stats.prediction_interval([1, 2, 3, 4, 5], 0.5)  # t(4, 50 %) = 0.74070
    assert (low, high) == pytest.approx((3 - 0.74070 * 3**0.5, 3 + 0.74070 * 3**0.5), abs=1e-4)
    assert stats.prediction_interval([0.8, 0.8]) == (0.8, 0.8)
    rng, held = np.random.default_rng(4), []
    for _ in range(4000):
        low, high = stats.prediction_interval(rng.normal(80, 2, 12))
        held.append(low <= rng.normal(80, 2) <= high)
    assert 0.94 <= np.mean(held) <= 0.96
    for values in ([1.0], [], [1.0, math.nan]):
        with pytest.raises(ValueError):
            stats.prediction_interval(values)


@pytest.mark.parametrize("effect, n, power", [(0.5, 34, 0.8078), (0.8, 15, 0.8213), (0.2, 199, 0.8017)])
def test_power_against_published_values(effect, n, power):
    """G*Power 3.1 and Cohen's effect sizes: the sample sizes that it gives for a power of 80 %, and the power there."""
    assert stats.power_of_paired_t(effect, n) == pytest.approx(power, abs=1e-4)
    assert stats.power_of_paired_t(effect, n - 1) < 0.8
    assert stats.power_of_paired_t(0.0, n, 0.01) == pytest.approx(0.01, abs=1e-5)  # nothing but false alarms


def test_detectable_effect_is_what_the_test_itself_finds_in_four_of_five_trials():
    rng = np.random.default_rng(5)
    for n, alpha in ((6, 0.05), (12, 0.05 / 14)):
        effect = stats.detectable_effect(2.0, n, alpha=alpha)
        sample = rng.normal(effect, 2.0, (40_000, n))
        t = sample.mean(axis=1) / sample.std(axis=1, ddof=1) * n**0.5
        assert np.mean(np.abs(t) > stats.t_quantile(n - 1, 1 - alpha)) == pytest.approx(0.8, abs=0.008)
    assert stats.detectable_effect(1.0, 12) == pytest.approx(0.88865, abs=1e-4)
    assert stats.detectable_effect(0.0, 12) == 0
    for sd, n, power in ((-1.0, 12, 0.8), (1.0, 1, 0.8), (1.0, 12, 0.05), (1.0, 12, 1.0)):
        with pytest.raises(ValueError):
            stats.detectable_effect(sd, n, power)


def test_mcnemar_against_brute_force_and_by_hand():
    # 1 against 8 disagreements: 2 * (C(9,0) + C(9,1)) / 2^9 = 20/512.
    a = [True] * 1 + [False] * 8 + [True] * 40 + [False] * 11
    b = [False] * 1 + [True] * 8 + [True] * 40 + [False] * 11
    assert stats.mcnemar(a, b) == stats.mcnemar(b, a) == 20 / 512
    for total in range(1, 9):
        for only_a in range(total + 1):
            x = [True] * only_a + [False] * (total - only_a)
            far = abs(only_a - total / 2)
            coins = [sum(coin) for coin in itertools.product((0, 1), repeat=total)]
            expected = np.mean([abs(heads - total / 2) >= far for heads in coins])
            assert stats.mcnemar(x, [not v for v in x]) == pytest.approx(expected)
    assert stats.mcnemar([True, False], [True, False]) == stats.mcnemar([], []) == 1.0
    with pytest.raises(ValueError):
        stats.mcnemar([True], [])


def test_holm_by_hand():
    # Sorted: .005*4 = .02, .01*3 = .03, .03*2 = .06, .04*1 -> kept at .06.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    with pytest.raises(ValueError):
        stats.holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_exactly_what_the_step_down_rule_rejects(ps):
    alpha, rejected = 0.05, set()
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        if (len(ps) - rank) * ps[index] > alpha:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(stats.holm(ps)) if p <= alpha} == rejected


def test_fishers_f_against_its_tables():
    # Abramowitz and Stegun, table 26.9: F exceeded with 5 %, 1 % and 50 %.
    for tail, top, bottom, f in [(0.05, 1, 10, 4.96), (0.05, 12, 12, 2.69), (0.01, 2, 3, 30.8), (0.01, 10, 20, 3.37),
                                 (0.5, 4, 4, 1.0)]:
        assert stats.f_quantile(tail, top, bottom) == pytest.approx(f, rel=2e-3)
        assert stats.f_tail(stats.f_quantile(tail, top, bottom), top, bottom) == pytest.approx(tail)
    assert stats.f_tail(0.0, 3, 4) == 1.0
    assert stats.f_tail(2.5**2, 1, 7) == pytest.approx(stats._t_tails(2.5, 7))  # t squared is F with one
    for wrong in (lambda: stats.f_tail(-1, 2, 3), lambda: stats.f_quantile(0, 2, 3), lambda: stats.f_quantile(1, 2, 3)):
        with pytest.raises(ValueError):
            wrong()
