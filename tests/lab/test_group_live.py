"""A GRPO group, live: what one step does to the probability of each of eight answers."""

from dataclasses import replace

import pytest
import torch

from phi_lab import sampling
from phi_lab.lab import group_live
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic
from phi_lab.problems.problem import Problem
from phi_lab.stages import grpo, minimal_grpo

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def mid(shipped):
    return checkpoints.load(shipped("mid"))


@pytest.fixture(scope="module")
def groups(mid, tokenizer):
    problems = arithmetic.sample_problems(12, seed=71_000, levels=(3, 4))
    return [group_live.sample_group(mid, tokenizer, problem, max_new_tokens=160) for problem in problems]


@pytest.fixture(scope="module")
def group(groups):
    return next(one for one in groups if 2 <= sum(row["verdict"] == "right" for row in one.rows) <= 6)


def test_the_group_is_the_one_that_minimal_grpo_collects(mid, tokenizer):
    """The same answers, rewards and advantages as in the loop of the stage's page."""
    problem = arithmetic.sample_problems(2, seed=71_000, levels=arithmetic.HARD_LEVELS)[1]
    group = group_live.sample_group(mid, tokenizer, problem, seed=5)
    params = sampling.SamplingParams(n=8, temperature=1.0, max_tokens=256, seed=5)
    batch, rewards = minimal_grpo.collect(mid, tokenizer, [problem], params, grpo.verified, grpo.group_normalised)
    assert rewards.unique().numel() == 2, "a group with right and wrong answers"
    assert torch.equal(batch.ids, group.batch.ids) and torch.equal(batch.advantages, group.batch.advantages)


def test_before_a_step_answers_are_as_probable_as_when_they_were_sampled(mid, group):
    sampled = (group.batch.old * group.batch.mask).sum(1)
    torch.testing.assert_close(torch.tensor(group_live.take_steps(mid, group, 0)[0]), sampled, atol=0.05, rtol=0)


def test_a_step_raises_the_objective_and_leaves_the_model_as_it_was(mid, group):
    """Sum of advantage x log-probability rises with each step; the page's own model does not move."""
    before = [weight.clone() for weight in mid.parameters()]
    history = group_live.take_steps(mid, group, 3)
    assert len(history) == 4
    scores = [sum(a * value for a, value in zip(group.advantages, one, strict=True)) for one in history]
    assert scores == sorted(scores) and scores[1] > scores[0] + 0.1
    assert all((one == two).all() for one, two in zip(mid.parameters(), before, strict=True))


def test_a_group_without_a_difference_moves_nothing(mid, group):
    rows = [{**row, "verdict": "wrong"} for row in group.rows]
    flat = group_live.Group(rows, replace(group.batch, advantages=torch.zeros(8, 1)), 1.0)
    first, *after = group_live.take_steps(mid, flat, 2)
    assert after == [first, first]
    assert "nothing moves" in group_live.summary(flat, [first, *after])
    assert group_live.figure(flat, [first, *after]).alt.count("by +0.00") == 8


def test_the_figure_says_what_it_shows_and_text_of_the_model_is_escaped(group):
    rows = [{**row, "completion": f"<think>{EVIL}</think>\\boxed{{{EVIL}}}", "prompt": EVIL} for row in group.rows]
    evil, history = group_live.Group(rows, group.batch, 1.0), [[-2.0] * 8, [-1.5] * 4 + [-3.0] * 4]
    page = group_live.shown(evil, history)
    assert EVIL not in page and "× 1.6" in page and "× 0.37" in page
    alt = group_live.figure(evil, history).alt
    assert alt.count("by +0.50") == 4 and alt.count("by -1.00") == 4 and "after 1 step" in alt


def test_the_buttons_step_and_go_back(mid, groups, group):
    box = group_live.widget(mid, groups, group)
    (question, buttons, view), one = box.children, box.children[-1].value
    again, restart = buttons.children
    assert view.value == group_live.shown(group, group_live.take_steps(mid, group, 1)), "its first state is the twin"
    again.click()
    assert "after 2 steps" in view.value
    for _ in range(group_live.MOST_STEPS - 2):
        again.click()
    assert again.disabled and f"after {group_live.MOST_STEPS} steps" in view.value
    restart.click()
    assert view.value == one and not again.disabled
    question.value = next(number for number, other in enumerate(groups) if other is not group)
    assert view.value != one and "after 1 step" in view.value


def test_the_widget_keeps_the_model_that_wrote_the_answers(shipped, tokenizer):
    """A page that trains its model afterwards does not change what the next click shows."""
    model = checkpoints.load(shipped("mid"))
    problem = Problem("arithmetic", "expression", 1, "7+8", "Compute 7+8.", "15")
    group = group_live.sample_group(model, tokenizer, problem, max_new_tokens=32, size=4)
    box = group_live.widget(model, [group], group)
    before = box.children[-1].value
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    box.children[1].children[1].click()
    assert box.children[-1].value == before
