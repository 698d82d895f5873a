"""The first wrong step of a worked solution: none in what is right, the right place for every kind of mistake."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_lab.model import chat
from phi_lab.problems import arithmetic, logic, worked_solutions
from phi_lab.problems.problem import Problem
from phi_lab.problems.step_check import first_wrong_step, step_at

CHAIN = Problem("arithmetic", "expression", 2, "47+38-12", "Compute 47+38-12.", "73", (("+", 47, 38), ("-", 85, 12)))
PLAN, FIRST, SECOND, END = "47+38,-12.", "47+38:7+8=15,4+3+1=8;85,-12.", "85-12:5-2=3,8-1=7;73.", "</think>\\boxed{73}"
CHECKED = "47+38:7+8=15,4+3+1=8;85.check 85-38:15-8=7,8-3-1=4;47 ok.85,-12."
FRACTION = Problem("arithmetic", "fraction", 2, "fraction", "Compute 2/4*3/7 as a fraction.", "3/14",
                   (("*", 4, 7), ("*", 2, 3)))
FRACTION_WORK = ("/4*7,2*3.", "4*7=28,2*3,/28.", "2*3=6,/28.", "6/28=3/14.", "</think>\\boxed{6/28}")


def wrong_in(problem, *parts):
    """Which of the parts the first wrong step begins with; None where none is wrong."""
    text = chat.THINK + "".join(parts)
    starts = [len(chat.THINK) + sum(map(len, parts[:number])) for number in range(len(parts) + 1)]
    position = first_wrong_step(problem, text)
    return None if position is None else starts.index(position)


@settings(max_examples=250)
@given(st.integers(0, 2**32), st.integers(1, 7), st.sampled_from(worked_solutions.STYLES))
def test_no_step_of_a_written_solution_is_wrong(seed, level, style):
    rng = random.Random(seed)
    problem = arithmetic.sample(rng, level, "fraction" if level in arithmetic.FRACTION_LEVELS and seed % 3 else "")
    text = chat.completion_text(*worked_solutions.write_solution(problem, style, rng))
    assert first_wrong_step(problem, text) is None
    position, steps = len(chat.THINK), []
    while position < len(text):
        steps.append(step_at(text, position))
        position += len(steps[-1])
    planned = not re.search("[:=]", steps[0])
    assert len(steps) == len(problem.steps) + planned + (problem.family == "fraction") + 1, steps
    assert all(step.endswith(".") for step in steps[:-1]) and steps[-1].startswith(chat.THINK_END)


@settings(max_examples=250)
@given(st.integers(0, 2**32), st.integers(1, 7), st.sampled_from(worked_solutions.STYLES))
def test_a_changed_digit_makes_the_step_wrong_in_which_it_stands(seed, level, style):
    """Any digit, of an operand, a column, a result or the operations that remain."""
    rng = random.Random(seed)
    problem = arithmetic.sample(rng, level)
    text = chat.completion_text(*worked_solutions.write_solution(problem, style, rng))
    slips = [match.span() for match in re.finditer(r"[^:;,.]+ no ", text)]  # may say anything
    digits = [match.start() for match in re.finditer("[0-9]", text)
              if not any(start <= match.start() < end for start, end in slips)]
    place = rng.choice(digits)
    changed = text[:place] + rng.choice("0123456789".replace(text[place], "")) + text[place + 1 :]
    start = len(chat.THINK)
    while start + len(step_at(text, start)) <= place:
        start += len(step_at(text, start))
    assert first_wrong_step(problem, changed) == start, changed


@pytest.mark.parametrize("parts, wrong", [
    ((PLAN, FIRST, SECOND, END), None),
    ((PLAN, CHECKED, SECOND, END), None),
    (("47+38:15,8;85.", "85-12:3,7;73.", END), None),
    ((FIRST, SECOND, END), None),  # without a plan, and yet with what remains
    ((PLAN, FIRST.replace("4+3+1=8", "4+3=7 no 4+3+1=8"), SECOND, END), None),
    ((PLAN, FIRST.replace("7+8=15", "15"), SECOND, END), None),
    (("47+38,+12.", FIRST, SECOND, END), 0),
    (("47+38.", "47+38:7+8=15,4+3+1=8;85.", SECOND, END), 0),
    ((PLAN, "48+38:8+8=16,4+3+1=8;86,-12.", "86-12:6-2=4,8-1=7;74.", "</think>\\boxed{74}"), 1),
    ((PLAN, "47-38:17-7=8,3-3=0;8,-12.", SECOND, END), 1),
    ((PLAN, FIRST.replace("4+3+1=8;85", "4+3=7;75"), SECOND, END), 1),
    ((PLAN, FIRST.replace("4+3+1=8", "4+3+1=8 no 4+3=7"), SECOND, END), 1),
    ((PLAN, FIRST.replace(",4+3+1=8", ""), SECOND, END), 1),
    ((PLAN, FIRST.replace(";85", ";86"), SECOND, END), 1),
    ((PLAN, FIRST.replace(",-12", ""), SECOND, END), 1),
    ((PLAN, FIRST.replace(",-12", ",-12,+3"), SECOND, END), 1),
    ((PLAN, CHECKED.replace("15-8=7", "15-8=6"), SECOND, END), 1),
    ((PLAN, CHECKED.replace("ok.85", "ok.86"), SECOND, END), 1),
    ((PLAN, FIRST, "75-12:5-2=3,7-1=6;63.", "</think>\\boxed{63}"), 2),
    ((PLAN, FIRST, END), 2),
    ((PLAN, FIRST, "85-12:5-2=3"), 2),
    ((PLAN, FIRST, SECOND, "73+4:3+4=7,7;77.", "</think>\\boxed{77}"), 3),
    ((PLAN, FIRST, SECOND, "</think>\\boxed{37}"), 3),
    ((PLAN, FIRST, SECOND, "</think>73"), 3),
    ((PLAN, FIRST, SECOND), 3),
])
def test_where_a_chain_goes_wrong(parts, wrong):
    assert wrong_in(CHAIN, *parts) == wrong


@pytest.mark.parametrize("place, written, wrong", [
    (3, "6/28=3/14.", None), (3, "6/28.", None), (3, "3/14.", None), (3, "6/24.", 3), (3, "6/28=3/15.", 3),
    (3, "6/0.", 3), (3, "", 3), (1, "4*7=28,2*3,/27.", 1), (0, "/4*7,2*3,/28.", 0), (4, "</think>\\boxed{6/27}", 4),
    (4, "</think>\\boxed{3/14}", None), (4, "</think>\\boxed{" + "9" * 5000 + "}", 4), (2, "٢*3=6,/28.", 2),
])
def test_where_a_fraction_goes_wrong(place, written, wrong):
    assert wrong_in(FRACTION, *FRACTION_WORK[:place], written, *FRACTION_WORK[place + 1 :]) == wrong


def test_what_is_no_worked_solution():
    assert first_wrong_step(CHAIN, "") == first_wrong_step(CHAIN, f"73{END}") == 0
    assert wrong_in(CHAIN, END) == wrong_in(CHAIN, "Well, 85.", END) == 0
    with pytest.raises(ValueError, match="no steps"):
        first_wrong_step(logic.sample(random.Random(0), 2), "<think>")
