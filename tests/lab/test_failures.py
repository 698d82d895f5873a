"""Failures that are produced on purpose: each shows what it is shown for, and the doctor names it."""

import pytest

from phi_lab import sampling
from phi_lab.lab import failures
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic
from phi_lab.verify import verify_many

PROBLEMS = arithmetic.sample_problems(54, 3, "validation", (3, 4))


@pytest.fixture(scope="module")
def sft(shipped):
    return checkpoints.load(shipped("sft"))


def named(failure):
    return {finding.rule for finding in failure.findings}


def right(failure):
    return sum(row["verdict"] == "right" for row in failure.answers) / len(failure.answers)


def same(model, other):
    return all((one == two).all() for one, two in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.slow
def test_the_papers_collapse(sft, shipped, tokenizer):
    """Gibberish that ends at the token limit, from a model that was right on most answers. Whether it also repeats
    itself is chance.
    """
    failure = failures.collapse(sft, tokenizer, PROBLEMS)
    assert failure.rows[0]["reward"] > 0 and failure.rows[-1]["reward"] == -1.0
    assert failure.rows[-1]["mean_length"] > 1.5 * failure.rows[0]["mean_length"]
    assert right(failure) == failure.right[1] == 0 and failure.right[0] > 0.5
    assert {"truncation", "all-wrong", "zero-variance"} <= named(failure)
    assert same(sft, checkpoints.load(shipped("sft")))  # the copy was trained


@pytest.mark.slow
def test_a_reward_for_length_is_named_by_the_accuracy_beside_it(sft, tokenizer):
    failure = failures.paid_by_length(sft, tokenizer, PROBLEMS)
    first, last = failure.rows[0], failure.rows[-1]
    assert last["reward"] > first["reward"] + 0.1 and last["mean_length"] > 1.3 * first["mean_length"]
    assert last["accuracy"] < first["accuracy"] - 0.2
    assert {"reward-hacking"} <= named(failure) <= {"reward-hacking", "zero-variance"}  # at the limit all are as long


def test_too_few_tokens_finish_no_answer(sft, tokenizer):
    failure = failures.cut_short(sft, tokenizer, PROBLEMS)
    assert {row["kept_share"] for row in failure.rows} == {0.0}
    assert {"zero-variance", "truncation"} <= named(failure)
    before, after = failure.right  # with room for an answer: nothing was learned, and nothing was lost
    assert before == after > 0.3 and right(failure) == 0


@pytest.mark.slow
def test_a_coin_pays_what_is_wrong_as_it_pays_what_is_right(sft, tokenizer):
    """Rewards are +1 and -1 about equally often while most answers are right, and the accuracy beside says so."""
    failure = failures.by_coin(sft, tokenizer, PROBLEMS, steps=2)
    assert all(abs(row["reward"]) < 0.5 for row in failure.rows)
    assert failure.rows[0]["accuracy"] > 0.5 and failure.right[0] > 0.5
    assert right(failure) == failure.right[1], "the answers that are shown are those that are counted"


def test_questions_that_are_too_hard_give_no_gradient(shipped, tokenizer):
    failure = failures.too_hard(checkpoints.load(shipped("base")), tokenizer, PROBLEMS)
    assert sum(row["kept_share"] for row in failure.rows) / len(failure.rows) < 0.1
    assert {"zero-variance", "all-wrong"} <= named(failure) and "truncation" not in named(failure)


@pytest.mark.slow
def test_dpo_at_a_high_rate_lowers_its_loss_and_ruins_the_model(sft, tokenizer):
    asked = arithmetic.sample_problems(60, 4, "train", (3, 4))
    params = sampling.SamplingParams(n=8, temperature=1.0, max_tokens=256, seed=2)
    groups = sampling.sample(sft, tokenizer, [problem.prompt for problem in asked], params, quiet=True)
    verdicts = iter(verify_many([
        (sample.text, problem.answer) for problem, group in zip(asked, groups, strict=True) for sample in group
    ]))
    pairs = []
    for problem, group in zip(asked, groups, strict=True):
        sides: dict[bool, list[str]] = {True: [], False: []}
        for sample in group:
            sides[next(verdicts).verdict == "right"].append(sample.text)
        if all(sides.values()):
            pairs.append({"prompt": problem.prompt, "chosen": sides[True][0], "rejected": sides[False][0]})
    failure = failures.both_fall(sft, tokenizer, pairs, PROBLEMS)
    assert failure.rows[-1]["loss"] < 0.5 < failure.rows[0]["loss"]  # by its loss, at first ln 2, a success
    assert failure.rows[-1]["rewards/margins"] > 1
    before = sampling.sample(sft, tokenizer, [problem.prompt for problem in PROBLEMS],
                             sampling.SamplingParams(n=1, temperature=0.0, max_tokens=256), quiet=True)
    verdicts = verify_many([(group[0].text, problem.answer) for problem, group in zip(PROBLEMS, before, strict=True)])
    assert right(failure) < 0.5 * sum(verdict.verdict == "right" for verdict in verdicts) / len(verdicts)
    assert "both-sides-fall" in named(failure)
