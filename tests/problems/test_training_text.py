"""Training text of every kind comes from its split and says what it should."""

import random
import re
from collections import Counter, defaultdict
from fractions import Fraction
from statistics import median

import pytest
from read_back import (
    FRACTION,
    answer_of,
    chain_identity,
    chain_of,
    identity,
    read_solution,
    split_of,
    worth,
)

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.core.paths import DISTILLED
from phi_lab.model import chat
from phi_lab.problems import arithmetic, pretraining_notes
from phi_lab.stages import pretraining_text


def read_documents(tokenizer, documents):
    """(prompt or None, completion) of each document; text without a question has no prompt."""
    for ids, _ in documents:
        text = tokenizer.decode(ids)
        match = re.fullmatch(r"<\|user\|>(.*)<\|end\|><\|assistant\|>(.*)<\|end\|>", text)
        yield match.groups() if match else (None, text)


def problems_behind(prompt, text):
    """Keys of all problems that a document is made from."""
    if prompt is not None:
        return [identity(prompt)]
    if not text.endswith(chat.END):  # facts and readings: each result is a problem of its own
        results = re.findall(r"(\d+)([-+*/])(\d+)=(\d+)\.", text)
        if re.match(r"\d[*]|\d+/\d=\dr", text):  # tables: products of digits and quotients with a rest are no problems
            assert all(int(left) < 10 for left, _, _, _ in results)
            return [None]
        if not results:  # plans: only the questions say which problems they are
            plans = re.findall(r"(.+?[.?]) ([/\d][-+*/\d]*(?:,[-+*/\d]+)*)\.", text)
            return [identity(question) for question, _ in plans]
        assert len(results) in (6, 12)
        return [chain_identity(int(left), [(operator, int(right))]) for left, operator, right, _ in results]
    steps = read_solution(text.removesuffix(chat.END))[0]
    if steps[0][0] < 11:  # the work of a fraction, whose question cannot be told from it
        return []
    assert all(before[3] == after[0] for before, after in zip(steps, steps[1:], strict=False))
    return [chain_identity(steps[0][0], [step[1:3] for step in steps])]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_pretraining_and_teacher_documents_come_from_their_split(tokenizer, split):
    documents = pretraining_text.base_documents(tokenizer, 3000, 3, split)
    documents += pretraining_text.teacher_documents(tokenizer, 500, 3, split)
    kinds = {"logic": 0, "arithmetic": 0, "no question": 0}
    for prompt, text in read_documents(tokenizer, documents):
        keys = problems_behind(prompt, text)
        assert {split_of(key) for key in keys if key} <= {split}, text
        assert keys or text.endswith(chat.END), text  # only the work of a fraction hides its question
        if prompt is None:
            kinds["no question"] += 1
        else:
            kinds["logic" if prompt.startswith(("Run", "Given")) else "arithmetic"] += 1
            assert Fraction(re.search(r"\\boxed\{(.+)\}$", text)[1]) == answer_of(prompt)
    assert min(kinds.values()) > 100, kinds


def test_readings_say_what_a_question_asks():
    for question, continuation in pretraining_notes.readings(random.Random(1), "train") + pretraining_notes.readings(
        random.Random(2), "train"
    ):
        left, operator, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)\.", continuation).groups()
        assert identity(question.strip()) == chain_identity(int(left), [(operator, int(right))])
        assert Fraction(result) == answer_of(question.strip())


def test_plans_name_the_operations_and_no_result():
    for seed in range(40):
        for question, continuation in pretraining_notes.plans(random.Random(seed), "train"):
            assert split_of(identity(question.strip())) == "train"
            if FRACTION.fullmatch(question.strip()):
                assert worth(None, continuation.removesuffix(".").split(",")) == answer_of(question.strip())
                continue
            first, *rest = continuation.removesuffix(".").split(",")
            left, operator, right = re.fullmatch(r"(\d+)([-+*/])(\d+)", first).groups()
            operations = [(operator, int(right)), *((part[0], int(part[1:])) for part in rest)]
            assert identity(question.strip()) == chain_identity(int(left), operations)
            result = int(left)
            for sign, number in operations:
                result = arithmetic.apply(sign, result, number)
            assert answer_of(question.strip()) == result


def test_base_meets_no_worked_solutions_and_the_teacher_none_above_five_operations(tokenizer):
    """Questions of six operations, which `hard` has, were worked out for nobody."""
    for prompt, text in read_documents(tokenizer, pretraining_text.base_documents(tokenizer, 300, 4)):
        assert prompt is None or not text.startswith(chat.THINK)
    worked = [
        prompt for prompt, text in read_documents(tokenizer, pretraining_text.teacher_documents(tokenizer, 400, 4))
        if text.startswith(chat.THINK)
    ]
    assert len(worked) > 150 and not any(prompt.startswith(("Run", "Given")) for prompt in worked)
    lengths = {len(chain_of(prompt)[1]) for prompt in worked if not FRACTION.fullmatch(prompt)}
    assert lengths == {1, 2, 3, 4, 5}


def test_replayed_text_has_about_the_tokens_asked_for_and_no_worked_solutions(tokenizer):
    documents = pretraining_text.replay_documents(tokenizer, 20_000, 5)
    assert 20_000 <= sum(len(ids) for ids, _ in documents) < 21_000
    texts = list(read_documents(tokenizer, documents))
    assert not any(text.startswith(chat.THINK) for _, text in texts)
    assert sum((prompt or "").startswith(("Run", "Given")) for prompt, _ in texts) > len(texts) / 3


def test_every_set_of_problems_has_the_same_share_of_each_level_and_wording():
    """By chance alone the fractions of two sets of 1,000 differ by 20, and fractions decide a chain."""
    for seed in (1, 2):
        for count in (1000, 37):
            problems = arithmetic.sample_problems(count, seed)
            counts = Counter((problem.level, problem.family) for problem in problems)
            assert counts == Counter(arithmetic.strata(count, (1, 2, 3, 4, 5)))
            assert counts.total() == count
    assert counts[2, "fraction"] > 0
    at_four = [size for (level, _), size in arithmetic.strata(1000, (4,)).items()]
    assert sorted(at_four) == [160, 160, 200, 200, 280]  # let, equation, word, fraction, expression
    order = [problem.level for problem in arithmetic.sample_problems(200, 1)]
    assert order != sorted(order)


def test_distillation_asks_different_questions_of_one_split():
    for split in ("train", "validation"):
        problems = arithmetic.sample_problems(400, 7, split)
        assert {split_of(identity(problem.prompt)) for problem in problems} == {split}
        assert len({identity(problem.prompt) for problem in problems}) == len(problems) == 400
        assert {problem.domain for problem in problems} == {"arithmetic"}
    assert {problem.level for problem in arithmetic.sample_problems(50, 1, levels=(3, 4))} == {3, 4}


def test_more_problems_than_there_are_is_an_error_and_no_endless_search(monkeypatch):
    monkeypatch.setattr(arithmetic, "MOST_REPEATED", 100)
    with pytest.raises(UserError, match="no 2,000 different problems .* as hardly any of 1 operation is left"):
        arithmetic.sample_problems(2000, 0, "validation", levels=(1,))


@pytest.mark.slow
def test_shipped_rollouts_never_meet_a_benchmark():
    for name, split in (("rollouts", "train"), ("validation_rollouts", "validation")):
        path = DISTILLED / f"{name}.jsonl.gz"
        assert path.is_file(), f"{path} is part of the course and missing: phi-lab ship"
        prompts = {row["prompt"] for row in read_rows(path, ("prompt",))}
        assert {split_of(identity(prompt)) for prompt in prompts} == {split}


@pytest.mark.slow
def test_the_shipped_teacher_s_answers_differ_in_length_and_in_verdict():
    """On questions of three operations and more: what choosing answers and the paper's pairs live on."""
    groups = defaultdict(list)
    for row in read_rows(DISTILLED / "rollouts.jsonl.gz"):
        if row["level"] >= 3:
            groups[row["id"]].append(row)
    ratios = [max(row["tokens"] for row in group) / min(row["tokens"] for row in group) for group in groups.values()]
    assert len(groups) > 500 and median(ratios) >= 1.5
    verdicts = [{row["verdict"] == "right" for row in group} for group in groups.values()]
    assert sum(len(found) == 2 for found in verdicts) / len(verdicts) >= 0.2
