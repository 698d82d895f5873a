"""Worked solutions are true: every equation in them, every slip, and the script teacher's answers."""

import random
import re
from fractions import Fraction
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_back import answer_of, chain_of, read_solution

from phi_lab.config.schema import DistillationConfig
from phi_lab.distill import shards, teachers
from phi_lab.problems import arithmetic, logic, worked_solutions
from phi_lab.stages import packing

SEEDS = st.integers(0, 2**32)
LEVELS = st.integers(1, 4)


def test_the_parser_itself_sees_a_lie():
    for work in (
        "47+38:7+8=15,4+3+1=9;95.", "47+38=86.", "87/3:8/3=2r1,27/3=9;29.", "47+38:7+8=15,4+3+1=8;86.",
        "47+38,-11.47+38:7+8=15,4+3+1=8;85,-11.85-12:5-2=3,8-1=7;73.", "47+38:7+8=15,4+3+1=8;85,-12.85-12=73.",
        "47+38,-12.47+38:7+8=15,4+3+1=8;85.85-12=73.", "47+38:15,8;85.check 85-38:7,4;47 ok.58.",
        "/2*4,3*7.2*4=8,3*7,/9.3*7=21,/8.21/8.",
        "/2*3,+1*2,1*3.2*3=6,+1*2,1*3,/6.1*2=2,1*3,+4,/6.1*3=3,+2,/6.3+2=5,/6.5/6.",
    ):
        with pytest.raises(AssertionError):
            read_solution(work)
    with pytest.raises(AssertionError, match="is true"):
        read_solution("47+38:7+8=15 no 7+8=16,4+3+1=8;86.")
    assert read_solution("47+38:7+8=14 no 7+8=15,4+3+1=8;85.85-12=73.")[0][-1] == (85, "-", 12, 73)


@settings(max_examples=600)
@given(SEEDS, LEVELS, st.sampled_from(worked_solutions.STYLES))
def test_every_worked_solution_is_true_and_ends_at_the_answer(seed, level, style):
    rng = random.Random(seed)
    problem = arithmetic.sample(rng, level)
    work, answer = worked_solutions.write_solution(problem, style, rng)
    steps, end, slips = read_solution(work)
    assert Fraction(answer) == Fraction(problem.answer) == answer_of(problem.prompt)
    assert not slips or style == "backtracking"
    assert (level > 1 and style != "terse") == (not re.search("[:=]", work.split(".")[0]))  # a plan comes first
    if level == 1 and ":" in work:  # a single operation always shows its columns
        assert re.search(r":\d+[-+*/]\d", work)
    assert "check" not in work or style == "checking"
    if problem.family == "fraction":
        assert Fraction(end) == Fraction(answer)
        return
    start, operations = chain_of(problem.prompt)
    assert len(steps) == len(operations) == level
    for (left, operator, right, result), wanted in zip(steps, operations, strict=True):
        assert (left, (operator, right)) == (start, wanted)  # each step goes on from the result of the one before
        start = result
    assert start == int(answer)


@settings(max_examples=200)
@given(SEEDS, LEVELS)
def test_logic_answers(seed, level):
    problem = logic.sample(random.Random(seed), level)
    assert Fraction(problem.answer) == answer_of(problem.prompt)
    assert len(problem.answer) == 1


def test_styles_really_occur():
    rng, seen = random.Random(0), {"check": 0, " no ": 0, ":": 0, ",-": 0}
    for _ in range(300):
        problem = arithmetic.sample(rng, 3)
        for style in worked_solutions.STYLES:
            work = worked_solutions.write_solution(problem, style, rng)[0]
            for mark in seen:
                seen[mark] += mark in work
    assert min(seen.values()) > 100, seen


# ------------------------------------------------------------------ the script teacher


def script_answers(problems, samples):
    """The script's answers to each problem."""
    keys = [(index, sample) for index in range(len(problems)) for sample in range(samples)]
    shard, groups = shards.RolloutShard(problems, 0, Path("unused"), keys), [[] for _ in problems]
    teacher = teachers.script_teacher(DistillationConfig(60, 0, samples=samples), 5)
    teacher([shard], lambda _, key, answer: groups[key[0]].append(answer))
    return groups


def test_answers_to_one_hard_prompt_differ_in_length():
    problems = [arithmetic.sample_split(random.Random(seed), 3 + seed % 2, "train") for seed in range(60)]
    groups = script_answers(problems, 8)
    assert {len(group) for group in groups} == {8}
    ratios = [max(tokens for _, _, tokens in group) / min(tokens for _, _, tokens in group) for group in groups]
    assert median(ratios) >= 1.5


def test_script_teacher_is_always_right_and_counts_tokens_as_training_does(tokenizer):
    problems = arithmetic.sample_problems(30, 9)
    for problem, group in zip(problems, script_answers(problems, 2), strict=True):
        for text, reason, tokens in group:
            work, answer = re.fullmatch(r"<think>(.+)</think>\\boxed\{(.+)\}", text).groups()
            assert Fraction(answer) == answer_of(problem.prompt) and reason == "stop"
            assert read_solution(work)
            ids, labels = packing.document(tokenizer, problem.prompt, text)
            assert sum(label >= 0 for label in labels) == tokens
