"""Rewordings share a split; the benchmarks are right, reproducible and all of the benchmark split."""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_back import FRACTION, answer_of, chain_of, identity, split_of

from phi_lab.core.errors import UserError
from phi_lab.core.paths import BENCHMARKS
from phi_lab.problems import arithmetic, benchmarks, logic
from phi_lab.problems.wordings import WORDINGS

SEEDS = st.integers(0, 2**32)
LEVELS = st.integers(1, 7)


@settings(max_examples=200)
@given(SEEDS, LEVELS)
def test_reworded_twins_share_key_and_split(seed, level):
    rng = random.Random(seed)
    start, operations = arithmetic._sample_chain(rng, level, 0.5)
    twins = {}
    while len(twins) < 4:
        problem = arithmetic._word_chain(rng, rng.choice(list(WORDINGS)), start, operations)
        twins[problem.family] = problem
    operator, number = operations[0]
    if operator in "+*":  # 47+38 is 38+47
        turned = [(operator, start), *operations[1:]]
        twins["turned"] = arithmetic._word_chain(rng, rng.choice(list(WORDINGS)), number, turned)
    assert len({twin.prompt for twin in twins.values()}) == len(twins) or start == number
    assert len({twin.key for twin in twins.values()}) == 1
    assert len({twin.split for twin in twins.values()}) == 1
    assert {identity(twin.prompt) for twin in twins.values()} == {problem.key}
    assert {chain_of(twin.prompt)[1][1:] == operations[1:] for twin in twins.values()} == {True}


@settings(max_examples=200)
@given(SEEDS, st.integers(2, 4))
def test_fractions_in_either_order_share_a_key(seed, level):
    problem = arithmetic._sample_fraction(random.Random(seed), level)
    assert identity(problem.prompt) == problem.key
    a, b, operator, c, d, e = FRACTION.fullmatch(problem.prompt).groups()
    turned = f"What is ({c}/{d}{operator}{a}/{b})*{e}" if e else f"What is {c}/{d}{operator}{a}/{b}"
    same = identity(f"{turned} as a fraction?") == problem.key
    assert same == (operator in "+*" or (a, b) == (c, d))


@settings(max_examples=100)
@given(SEEDS)
def test_the_order_of_statements_is_not_in_the_key(seed):
    problem = logic._truth(random.Random(seed), 3)
    assert identity(problem.prompt) == problem.key


def test_splits_have_their_shares_and_follow_from_the_words():
    rng = random.Random(1)
    problems = [arithmetic.sample(rng, 4) for _ in range(4000)]
    assert all(problem.split == split_of(identity(problem.prompt)) for problem in problems)
    splits = [problem.split for problem in problems]
    share = [splits.count(name) / len(splits) for name in ("train", "validation", "benchmark")]
    assert share == pytest.approx([0.80, 0.08, 0.12], abs=0.03)


# ------------------------------------------------------------------ benchmarks


@pytest.fixture(scope="module")
def rows():
    return {name: benchmarks.load(name) for name in benchmarks.NAMES}


def test_benchmarks_are_what_is_documented(rows):
    levels = {"easy": {1}, "hard": {3, 4, 5, 6, 7}, "transfer": {1, 2, 3}}
    for name, problems in rows.items():
        assert len(problems) == {"easy": 500, "hard": 1000, "transfer": 1000}[name]
        assert len({row["id"] for row in problems}) == len({row["prompt"] for row in problems}) == len(problems)
        assert {row["level"] for row in problems} == levels[name]
        assert {row["domain"] for row in problems} == {"logic" if name == "transfer" else "arithmetic"}
        assert set(problems[0]) == {"id", "domain", "level", "prompt", "answer"}
    assert not {row["id"] for row in rows["easy"]} & {row["id"] for row in rows["hard"]}
    asked = [identity(row["prompt"]) for name in ("easy", "hard") for row in rows[name]]
    assert len(set(asked)) == len(asked)  # 1,500 problems, not the same sums in other words


def test_benchmark_answers_are_right(rows):
    for problems in rows.values():
        for row in problems:
            assert Fraction(row["answer"]) == answer_of(row["prompt"]), row


def test_benchmarks_are_rebuilt_byte_for_byte(tmp_path):
    benchmarks.build(tmp_path)
    for name in benchmarks.NAMES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (BENCHMARKS / f"{name}.jsonl").read_bytes()


def test_unknown_benchmark():
    with pytest.raises(UserError, match="easy, hard, transfer"):
        benchmarks.load("aime")


def test_every_benchmark_problem_falls_into_the_benchmark_split(rows):
    for problems in rows.values():
        assert {split_of(identity(row["prompt"])) for row in problems} == {"benchmark"}


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_operands_of_a_benchmark_are_drawn_for_training(rows, split):
    forbidden = {identity(row["prompt"]) for problems in rows.values() for row in problems}
    rng = random.Random(split)
    drawn = [arithmetic.sample_split(rng, level, split) for level in (1, 1, 1, 3, 4, 5, 6) for _ in range(1500)]
    drawn += [logic.sample_split(rng, level, split) for level in (1, 1, 2) for _ in range(1500)]
    met = {identity(problem.prompt) for problem in drawn}
    assert not met & forbidden
    # The check can fail: problems drawn without a split do meet the benchmarks.
    free = {identity(arithmetic.sample(rng, 1).prompt) for _ in range(3000)}
    assert free & forbidden
