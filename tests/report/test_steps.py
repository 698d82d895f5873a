"""The steps of a ladder over chains: by hand, and with known spreads."""

import numpy as np
import pytest
from nested_answers import rows_of

from phi_lab.core.errors import UserError
from phi_lab.report import components, steps
from phi_lab.report.components import Nest

SFT, MID = (Nest(name, ((f"{name}-own", f"{name}-again"), (f"{name}-new", f"{name}-new-2"))) for name in ("sft", "mid"))


def rows(after, before, samples=4):
    """Rows of both stages for counts (chains, trainings, evaluations, problems)."""
    found = []
    for nest, counts in ((SFT, after), (MID, before)):
        found += rows_of(counts, samples, [name for training in nest.arms for name in training])
    return found


def test_a_step_is_a_difference_of_the_chains_own_models():
    """Two chains, two problems with two answers of one sample; the trainings with another seed are no part of it."""
    own = np.array([[[[1, 1], [1, 0]], [[0, 0], [0, 0]]], [[[1, 1], [1, 1]], [[0, 0], [0, 0]]]])
    before = np.array([[[[0, 0], [1, 0]], [[1, 1], [1, 1]]], [[[1, 0], [1, 0]], [[1, 1], [1, 1]]]])
    found = steps.measured(rows(own, before, 1), SFT, MID)
    # Shares of two answers: (1, 0.5) - (0.5, 0) = (0.5, 0.5), and (1, 1) - (1, 0) = (0, 1): both 0.5 in the mean.
    assert (found.stage, found.before, found.chains, found.problems) == ("sft", "mid", 2, 2)
    assert found.mean == 0.5 and found.square == 0.0
    # One of two right: p (1 - p) is estimated as 1 x 1 / 2. After, one of four such cells, before, one: each 1 / 8.
    assert found.sampling == pytest.approx((1 / 8 + 1 / 8) / 2)
    # Deviations of (0.5, 0.5), (0, 1) from problems' means (0.25, 0.75): a square of 1 / 16 each, so 1 / 16 x 2 x 2.
    assert found.by_problem == pytest.approx(0.25 - (1 / 8 + 1 / 8) / 2)
    alone = steps.measured(rows(own, before, 1), SFT)
    assert alone.before is None and alone.mean == pytest.approx((0.75 + 1) / 2)
    assert alone.square == pytest.approx(np.var([0.75, 1.0], ddof=1))


def test_a_known_spread_is_found_and_covered():
    """Of 100 ladders: the spread of the step, on 200 problems and on 30, without what sampling adds."""
    rng, held, seen = np.random.default_rng(1), [], []
    for _ in range(100):
        level = 0.5 + 0.03 * rng.normal(size=(12, 1, 1, 1)) + 0.1 * rng.normal(size=200)
        gain = 0.1 + 0.02 * rng.normal(size=(12, 1, 1, 1)) + 0.1 * rng.normal(size=(12, 1, 1, 200))
        before, after = (rng.binomial(4, np.broadcast_to(np.clip(one, 0, 1), (12, 2, 2, 200)))
                         for one in (level, level + gain))
        found = steps.measured(rows(after, before), SFT, MID)
        seen.append([found.variance(200)[0], found.variance(30)[0], found.mean])
        held.append([low <= 0.02**2 + 0.1**2 / count <= high
                     for count, (_, low, high) in ((one, found.variance(one)) for one in (200, 30))])
    assert np.mean(seen, 0) == pytest.approx([0.02**2 + 0.1**2 / 200, 0.02**2 + 0.1**2 / 30, 0.1], rel=0.12)
    assert (np.mean(held, 0) >= 0.88).all()


def test_only_chains_with_both_ends_count():
    counts = np.random.default_rng(2).binomial(4, 0.5, (3, 2, 2, 10))
    both = rows(counts, counts)
    fewer = [row for row in both if (row["seed"], row["name"]) != (1, "mid-own")]
    assert steps.measured(fewer, SFT, MID).chains == 2 and steps.measured(fewer, SFT).chains == 3
    with pytest.raises(UserError, match="^1 seeds with all of sft and mid: a step needs two$"):
        steps.measured([row for row in fewer if row["seed"] != 0], SFT, MID)


def test_all_steps_go_back_to_what_chains_share():
    counts = np.random.default_rng(3).binomial(4, 0.5, (3, 2, 2, 10))
    found = steps.all_steps(rows(counts, counts), [SFT, MID])
    assert {name: (one.stage, one.before) for name, one in found.items()} == {
        "sft": ("sft", "mid"), "mid": ("mid", None), "whole": ("sft", None)}
    table = steps.table([*found.values()])
    assert [line[0] for line in table[1:]] == ["SFT over mid-training", "mid-training by itself", "SFT by itself"]
    assert table[1][2] == "+0.0" and all(len(line) == len(table[0]) for line in table)


def test_a_line_by_hand():
    """Twelve chains whose differences have a variance of 4e-4, of which sampling is 0.05 / 500 and 0.1 / 500 is luck
    with single problems: 1e-4 is alike for all, so 3e-4 on 500 problems and 1e-4 + 0.1 / 30 on 30.
    """
    drawn = np.array([[0.05] * components.DRAWS, [0.1] * components.DRAWS])
    one = steps.Step("grpo", "dpo", 12, 0.02, 4e-4, 0.05, 0.1, drawn, 500)
    assert one.variance(500)[0] == pytest.approx(3e-4) and one.variance(30)[0] == pytest.approx(1e-4 + 0.1 / 30)
    _, low, high = one.variance(500)
    chi2 = np.random.default_rng(1).chisquare(11, 200_000)
    alike = np.maximum(0, 4e-4 * 11 / chi2 - 3e-4)
    assert (low, high) == pytest.approx(np.quantile(alike, (0.025, 0.975)) + 2e-4, rel=0.04)
    line = steps.table([one])[1]
    assert line[:5] == ["GRPO over Rollout DPO", "12", "+2.0", "2.00", "1.00"]
    assert line[5].startswith("1.73 [") and line[6].startswith("5.86 [")


def test_both_ends_have_the_same_problems():
    counts = np.random.default_rng(4).binomial(4, 0.5, (3, 2, 2, 10))
    both = rows(counts, counts)
    for row in both:
        if row["name"].startswith("mid"):
            row["notes"]["problems"] = "others"
    with pytest.raises(UserError, match="^sft and mid were measured on other problems$"):
        steps.measured(both, SFT, MID)
    assert steps.measured(both, MID).chains == 3
