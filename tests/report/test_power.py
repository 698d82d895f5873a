"""How many seeds and samples show a difference: against simulated experiments, and each other."""

import numpy as np
import pytest

from phi_lab.core import stats
from phi_lab.report import power
from phi_lab.report.power import Variances
from phi_lab.report.spread import ProblemParts

SPREAD = Variances(0.02**2, 0.01**2, 0.006**2)


def simulated(rng, difference, variances, seeds, paired, count=4_000):
    """Of `count` experiments the share in which a t-test over `seeds` scores of each recipe has p < 0.05."""
    def scores(chain):
        return chain + sum(np.sqrt(one) * rng.normal(size=(count, seeds)) for one in variances[1:])

    chains = [np.sqrt(variances.chain) * rng.normal(size=(count, seeds)) for _ in range(2)]
    a, b = difference + scores(chains[0]), scores(chains[0] if paired else chains[1])
    if paired:
        t = (a - b).mean(1) / ((a - b).std(1, ddof=1) / seeds**0.5)
    else:
        t = (a.mean(1) - b.mean(1)) / np.sqrt((a.var(1, ddof=1) + b.var(1, ddof=1)) / seeds)
    return np.mean(np.abs(t) > stats.t_quantile(seeds - 1 if paired else 2 * seeds - 2))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [2, 3, 6, 12])
def test_the_smallest_difference_is_seen_in_four_of_five_experiments(seeds, paired):
    difference = power.detectable(SPREAD, seeds, paired)
    assert simulated(np.random.default_rng(seeds), difference, SPREAD, seeds, paired) == pytest.approx(0.8, abs=0.025)
    assert power.power_of(difference, SPREAD, seeds, paired) == pytest.approx(0.8, abs=1e-4)
    assert power.power_of(-difference, SPREAD, seeds, paired) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("paired", [True, False])
def test_no_difference_is_seen_in_one_of_twenty(paired):
    assert power.power_of(0.0, SPREAD, 6, paired) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("difference", [0.005, 0.01, 0.03, 0.2])
def test_seeds_needed_are_the_fewest(difference, paired):
    seeds = power.seeds_needed(difference, SPREAD, paired)
    assert power.power_of(difference, SPREAD, seeds, paired) >= 0.8
    assert seeds == 2 or power.power_of(difference, SPREAD, seeds - 1, paired) < 0.8
    assert seeds == power.seeds_needed(-difference, SPREAD, paired)


def test_weak_power_needs_few_seeds():
    """Below a power of a half both tails count: the start of the search may not lie above the answer."""
    seeds = power.seeds_needed(0.004, SPREAD, True, power=0.1)
    assert power.power_of(0.004, SPREAD, seeds, True) >= 0.1 > power.power_of(0.004, SPREAD, seeds - 1, True)
    assert power.power_of(power.detectable(SPREAD, 50, True, 0.06), SPREAD, 50, True) == pytest.approx(0.06, abs=1e-4)


def test_pairs_help_by_what_the_chain_adds():
    assert SPREAD.of_difference(True) == pytest.approx(2 * (0.01**2 + 0.006**2))
    assert SPREAD.of_difference(False) - SPREAD.of_difference(True) == pytest.approx(2 * 0.02**2)
    alone = SPREAD._replace(chain=0.0)
    assert power.detectable(alone, 30, True) > power.detectable(alone, 30, False)  # only degrees of freedom are lost


def test_samples_shrink_the_evaluation_alone():
    """More samples cannot replace seeds: with endless ones the seeds that a difference needs have a floor."""
    parts = ProblemParts(sampling=0.1, training=1e-4, training_problem=0.02, chain=4e-4, chain_problem=0.01)
    needed = [power.seeds_needed(0.01, parts.variances(500, samples), True) for samples in (1, 4, 16, 10**9)]
    assert needed == sorted(needed, reverse=True) and needed[-1] > 10
    few, many = parts.variances(30, 64), parts.variances(960, 2)  # as many answers
    assert few.evaluation == pytest.approx(many.evaluation)
    assert few.training == pytest.approx(1e-4 + 0.02 / 30) and few.chain == pytest.approx(4e-4 + 0.01 / 30)


def test_nothing_that_spreads_needs_two_seeds():
    still = Variances(0.0, 0.0, 0.0)
    assert power.seeds_needed(0.01, still, True) == 2 and power.detectable(still, 2, False) == 0.0
    assert power.power_of(0.0, still, 2, True) == 0.0


def test_more_than_a_thousand_is_more():
    assert power.seeds_needed(1e-4, SPREAD, True) is None
    assert str(power.needed(1e-4, SPREAD, True)) == "more"
    found = power.needed(0.01, SPREAD, True, (0.5, 2.0))
    assert found.low < found.seeds < found.high
    assert str(found) == f"{found.seeds} [{found.low}, {found.high}]"
    assert str(power.needed(0.01, SPREAD, True)) == str(found.seeds)


def test_tables_say_points():
    few = SPREAD._replace(evaluation=0.008)
    table = power.needed_table([("500 x 4", SPREAD, (1.0, 1.0)), ("30 x 1", few, (0.5, 2.0))], (0.01, 0.05), True)
    assert table[0] == ["to see", "500 x 4", "30 x 1"] and [row[0] for row in table[1:]] == ["1 points", "5 points"]
    assert table[1][1] == str(power.seeds_needed(0.01, SPREAD, True)) and table[2][2].count("[") == 1
    table = power.detectable_table(SPREAD, (3, 6))
    assert table[2] == ["6", *(f"{100 * power.detectable(SPREAD, 6, paired):.1f}" for paired in (True, False))]


@pytest.mark.parametrize("call", [
    lambda: power.power_of(0.01, SPREAD, 1, True), lambda: power.detectable(SPREAD, 1, True),
    lambda: power.detectable(SPREAD, 5, True, power=0.01), lambda: power.seeds_needed(0.0, SPREAD, True),
])
def test_what_has_no_answer_is_refused(call):
    with pytest.raises(ValueError):
        call()
