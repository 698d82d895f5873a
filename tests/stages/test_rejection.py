"""Rejection fine-tuning keeps the right answers, keeps to its budget, and goes on where it was killed."""

import pytest
from stage_helpers import SFT, Stop, check_leftovers, moved, weights

from phi_lab.core.files import read_json
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic
from phi_lab.stages import lm_trainer, rejection
from phi_lab.verify import verify

BUDGET, LOT = 6_000, 8


@pytest.fixture(autouse=True)
def small_lots(monkeypatch):
    monkeypatch.setattr(rejection, "ASKED_AT_ONCE", LOT)


def two_or_three_steps(count, seed):
    return arithmetic.sample_problems(count, seed, levels=(2, 3))


def tune(student, out, **rest):
    settings = {"budget": BUDGET, "rounds": 2, "max_tokens": 96, "seed": 3, **rest}
    return rejection.train(student, two_or_three_steps, out, SFT, **settings)


@pytest.fixture(scope="module")
def tuned(shipped, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rejection, "ASKED_AT_ONCE", LOT)
        return tune(shipped("mid"), out), out


def recorded(verdicts):
    """An `ask` whose answers to each question are right as `verdicts` say, and what it was asked."""
    asked = []

    def ask(problems, samples, seed):
        asked.append(([problem.id for problem in problems], samples))
        first = 0 if samples == 1 else 1
        return [[{"id": problem.id, "right": right} for right in verdicts[problem.id][first : first + samples]]
                for problem in problems]

    return ask, asked


def test_only_questions_that_are_often_failed_are_kept_and_asked_again():
    problems = arithmetic.sample_problems(5, 0)
    names = [problem.id for problem in problems]
    patterns = ["RRRRRRRR", "WRRRRRRR", "WRRRRWWW", "WWWWWWWW", "WWWWWWWR"]
    ask, asked = recorded({name: [mark == "R" for mark in pattern]
                           for name, pattern in zip(names, patterns, strict=True)})
    kept = rejection.often_failed(ask, problems, 0)
    assert asked == [(names, 1), (names[1:], 7)]  # what is right at once costs one answer
    assert [row["id"] for row in kept] == [names[2]] * 4 + [names[4]] and all(row["right"] for row in kept)


def test_fresh_answers_of_a_teacher_are_one_a_question():
    problems = arithmetic.sample_problems(3, 0)
    names = [problem.id for problem in problems]
    ask, asked = recorded(dict(zip(names, ([True], [False], [True]), strict=True)))
    assert [row["id"] for row in rejection.fresh(ask, problems, 0)] == [names[0], names[2]]
    assert asked == [(names, 1)]


@pytest.mark.slow
def test_it_trains_on_right_answers_within_its_budget(tuned, shipped):
    result, out = tuned
    check_leftovers(result, out)
    assert moved(shipped("mid"), result.model) > 1e-4
    rounds = [read_json(out / f"round-{number}" / "answers.json") for number in (1, 2)]
    marks = [read_json(out / f"round-{number}" / "done.json") for number in (1, 2)]
    assert result.forward_tokens == sum(answers["forward_tokens"] for answers in rounds)
    assert result.train_tokens == sum(mark["train_tokens"] for mark in marks)
    longest = 96 + max(row["tokens"] for answers in rounds for row in answers["rows"])
    at_most = LOT * rejection.SAMPLES * longest / 3 + SFT.batch_size * longest  # a lot and a step too many
    assert BUDGET / 2 < result.compute < BUDGET + at_most
    first = (3 + rejection.SEEDS) * 1_000_003
    asked = [problem for number in (0, 1) for lot in range(rounds[number]["asked"] // LOT)
             for problem in two_or_three_steps(LOT, first + 1000 * number + 2 * lot)]
    questions = {problem.id: problem for problem in asked}
    for answers in rounds:
        assert answers["rows"]
        for row in answers["rows"]:
            assert verify(row["completion"], questions[row["id"]].answer).verdict == "right"
    assert {row["round"] for row in result.metrics} == {1, 2}
    steps = [row["step"] for row in result.metrics]
    assert steps == sorted(steps)


@pytest.mark.slow
def test_each_round_asks_the_student_of_the_round_before(tuned, shipped, monkeypatch, tmp_path):
    _, out = tuned
    asked, real = [], rejection._collect
    monkeypatch.setattr(rejection, "_collect", lambda model, *rest: asked.append(model) or real(model, *rest))
    tune(shipped("mid"), tmp_path)
    assert asked == [shipped("mid"), tmp_path / "round-1" / "model"]


@pytest.mark.slow
def test_killed_in_the_second_round_it_ends_the_same(tuned, shipped, tmp_path, monkeypatch):
    result, _ = tuned
    real, calls = lm_trainer.fit_rollouts, []

    def fit(model, rows, held_out, out, *rest, **named):
        calls.append(out.name)
        if calls == ["round-1", "round-2"]:
            raise Stop
        return real(model, rows, held_out, out, *rest, **named)

    monkeypatch.setattr(lm_trainer, "fit_rollouts", fit)
    with pytest.raises(Stop):
        tune(shipped("mid"), tmp_path)
    again = tune(shipped("mid"), tmp_path)
    assert calls == ["round-1", "round-2", "round-2"]  # nothing finished is repeated
    first, second = weights(result.model), weights(again.model)
    assert all((first[name] == second[name]).all() for name in first)
    assert (result.train_tokens, result.forward_tokens) == (again.train_tokens, again.forward_tokens)


@pytest.mark.slow
def test_a_teacher_is_asked_instead_of_the_student(shipped, tmp_path, monkeypatch):
    asked, real = [], rejection._collect
    monkeypatch.setattr(rejection, "_collect", lambda *given: asked.append((given[0], given[-1])) or real(*given))
    result = tune(shipped("mid"), tmp_path, rounds=1, teacher=shipped("teacher"))
    assert asked == [(shipped("teacher"), rejection.fresh)]
    answers = read_json(tmp_path / "round-1" / "answers.json")
    assert answers["forward_tokens"] > sum(row["tokens"] for row in answers["rows"])  # wrong ones are paid for, too
    assert result.forward_tokens == answers["forward_tokens"] and result.train_tokens > 0


def test_without_a_right_answer_the_model_stays_what_it_was(student, tmp_path):
    result = tune(student, tmp_path, budget=300, max_tokens=4)
    assert checkpoints.fingerprint(result.model) == checkpoints.fingerprint(student)
    assert result.train_tokens == 0 and result.compute >= 300 and result.metrics == []
