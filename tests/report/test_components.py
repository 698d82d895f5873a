"""Components of variance: known ones are found again, intervals cover, what is missing is left out or named."""

import numpy as np
import pytest
from nested_answers import NEST, answers, rows_of

from phi_lab.core.errors import UserError
from phi_lab.report import components
from phi_lab.report.components import nested_anova


def drawn(rng, sds, units=12, trainings=2, evaluations=2):
    """Scores (units, trainings, evaluations) of normal levels with these standard deviations."""
    chain, training, evaluation = sds
    return (chain * rng.normal(size=(units, 1, 1)) + training * rng.normal(size=(units, trainings, 1))
            + evaluation * rng.normal(size=(units, trainings, evaluations)))


# ------------------------------------------------------------------ analysis of variance


def test_mean_squares_by_hand():
    """Two units, trainings (1, 3), (5, 7) and (4, 4), (8, 8). Means of trainings 2, 6 and 4, 8; of units 4 and 6.
    Between units 4 x (1 + 1) / 1 = 8, between trainings 2 x (4 + 4 + 4 + 4) / 2 = 16, between evaluations (2 + 2) / 4.
    """
    found = nested_anova(np.array([[[1, 3], [5, 7]], [[4, 4], [8, 8]]], dtype=float))
    assert found.squares == (8.0, 16.0, 1.0) and found.freedom == (1, 2, 4)
    assert found.components().tolist() == [-2.0, 7.5, 1.0] and found.variances() == (0.0, 7.5, 1.0)


def test_known_components_are_found_in_the_mean():
    rng, sds = np.random.default_rng(1), (0.03, 0.02, 0.01)
    found = np.mean([nested_anova(drawn(rng, sds)).components() for _ in range(1_000)], 0)
    assert found == pytest.approx(np.square(sds), rel=0.08)


@pytest.mark.parametrize("sds", [(0.03, 0.01, 0.01), (0.01, 0.02, 0.005), (0.02, 0.0, 0.01), (0.0, 0.01, 0.01)])
def test_intervals_cover_what_they_promise(sds, monkeypatch):
    """Of 500 samples 95 % should hold the true component; the generalised intervals may be wider, and are narrower by
    little. At zero the lower end is 0 in all but 2.5 %.
    """
    monkeypatch.setattr(components, "DRAWS", 1_000)
    rng, held = np.random.default_rng(2), np.zeros(3)
    for _ in range(500):
        low, high = np.quantile(nested_anova(drawn(rng, sds)).draws(), (0.025, 0.975), axis=1)
        held += (low <= np.square(sds)) & (np.square(sds) <= high)
    assert (held / 500 >= 0.93).all() and (held / 500 <= 1).all()


def test_nothing_varies():
    found = nested_anova(np.full((3, 2, 2), 0.5))
    assert found.variances() == (0, 0, 0) and not found.draws().any()


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 1, 2), (3, 2, 1), (3, 4)])
def test_a_level_of_one_has_no_variance(shape):
    with pytest.raises(ValueError, match="at least 2 x 2 x 2"):
        nested_anova(np.zeros(shape))


# ------------------------------------------------------------------ tests of levels


@pytest.mark.slow
def test_a_level_that_adds_nothing_is_seldom_shown(monkeypatch):
    """Of 400 experiments without a difference at any level one of twenty may show one, over both tests together."""
    monkeypatch.setattr(components, "DRAWS", 10)
    rng, shown = np.random.default_rng(4), 0
    for _ in range(400):
        counts = rng.binomial(4, 0.6, (6, 2, 2, 50))
        found = components.levels(rows_of(counts), [NEST])
        shown += any(one.verdict == "supported" for one in found)
    assert 0.01 <= shown / 400 <= 0.085


def test_the_detectable_level_is_detected_in_four_of_five():
    """Chains with just that standard deviation, where trainings and evaluations are as they were estimated."""
    rng = np.random.default_rng(5)
    anova = nested_anova(drawn(rng, (0.0, 0.02, 0.01)))
    anova = anova._replace(squares=(0.0, 2 * 0.02**2 + 0.01**2, 0.01**2))
    sd, limit = components._detectable(anova, 0, 0.05), components.stats.f_quantile(0.05, 11, 12)
    hits = [table.squares[0] / table.squares[1] > limit
            for table in (nested_anova(drawn(rng, (sd, 0.02, 0.01))) for _ in range(1_000))]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)
    sd, limit = components._detectable(anova, 1, 0.05), components.stats.f_quantile(0.05, 12, 24)
    hits = [table.squares[1] / table.squares[2] > limit
            for table in (nested_anova(drawn(rng, (0.1, sd, 0.01))) for _ in range(1_000))]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)


def test_levels_come_in_order_and_the_first_is_primary():
    rng = np.random.default_rng(16)
    counts, _ = answers(rng, chain=0.06, training=0.0)
    found = components.levels(rows_of(counts), [NEST, NEST])
    assert [one.name for one in found] == ["chain", "training", "evaluation"] * 2
    assert found[0].verdict == "supported" and found[1].verdict == "no difference shown"
    assert found[0].sd_low < 0.06 < found[0].sd_high and found[0].units == 12 and found[0].freedom == 11
    assert sum(one.share for one in found[:3]) == pytest.approx(1)
    assert found[2].p_holm is None and found[2].detectable is None
    raw = components.stats.f_tail(found[0].f, 11, 12)
    assert found[0].p_holm == pytest.approx(4 * raw)  # the two smallest of four are equal


def test_a_negative_estimate_is_zero_and_says_so():
    scores = np.array([[[0, 2], [20, 22]], [[10, 12], [11, 9]], [[21, 20], [1, 0]]]) + 10
    counts = np.stack([scores, scores], -1)  # two problems
    found = components.levels(rows_of(counts // 10, samples=4), [NEST])
    assert found[0].negative and found[0].sd == found[0].share == 0.0 and found[0].sd_high > 0


# ------------------------------------------------------------------ cells


def test_cells_are_where_their_arms_say_and_agree_with_the_scores():
    counts, _ = answers(np.random.default_rng(7), problems=5, units=3)
    scores, found, samples = components.cells(rows_of(counts)[::-1], NEST)
    assert (found == counts).all() and samples == 4 and scores == pytest.approx(counts.mean(3) / 4)


def test_a_chain_without_a_cell_is_left_out_and_one_is_too_few():
    counts, _ = answers(np.random.default_rng(8), problems=5, units=3)
    rows = rows_of(counts)
    assert (components.cells(rows[:5] + rows[6:], NEST)[1] == counts[[0, 2]]).all()
    with pytest.raises(UserError, match="^1 seeds with own, again, new, new-2: a variance between them needs two$"):
        components.levels(rows[:4] + rows[5:8], [NEST])


def test_rows_of_other_problems_are_not_compared():
    for number, other in ((3, {"right": "1111"}), (6, {"samples": 2}), (5, {"problems": "as many others"})):
        rows = rows_of(np.ones((2, 2, 2, 5), dtype=int))
        rows[number]["notes"] |= other
        with pytest.raises(UserError, match="other problems, samples or protocols"):
            components.cells(rows, NEST)
