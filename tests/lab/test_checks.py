"""Every exercise's check: the reference passes, a stub waits, plausible wrong answers fail with a counter-example."""

import ast
import random
import re
import signal
import sys
import threading
import time

import pytest
import torch
from IPython.core.autocall import ExitAutocall
from wrong_attempts import (
    WRONG,
    after_the_thoughts,
    best_fit_of,
    drawn_with_a_generator_of_its_own,
    drawn_without_the_generator,
    drops_what_fills_a_row,
    first_fit_decreasing,
    first_fit_in_order,
    half_of_eight,
    never_fills_a_row,
    of_name,
    reward_by,
    same_number,
    written_in_place,
)

from phi_lab.config import presets
from phi_lab.core import paths
from phi_lab.core.formatting import markdown_table
from phi_lab.lab import checks, grading
from phi_lab.pipeline import notebooks
from phi_lab.stages import grpo


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_the_reference_passes(check):
    verdict, why = check.grade(lambda *arguments: check.reference(*arguments))
    assert verdict == grading.RIGHT, why


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_the_reference_itself_is_nobody_s_attempt(check, capsys):
    verdict, why = check.grade(check.reference)
    assert verdict == grading.NOT_ATTEMPTED and "this is the reference" in why
    assert check.use(check.reference) is check.reference


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_a_stub_waits_and_the_reference_is_used(check, capsys):
    assert check.grade(lambda *_: NotImplemented)[0] == grading.NOT_ATTEMPTED
    assert check.use(lambda *_: NotImplemented) is check.reference


@pytest.mark.parametrize(("name", "place"), [(name, i) for name, wrong in WRONG.items() for i in range(len(wrong))])
def test_a_plausible_wrong_answer_fails_with_a_counter_example(name, place):
    verdict, why = of_name(name).grade(WRONG[name][place])
    assert verdict == grading.WRONG
    assert len(why) > 20 and "raised" not in why, why


def test_every_check_has_three_wrong_answers():
    assert {check.name for check in checks.ALL} == set(WRONG)
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize(
    ("name", "attempt", "lesson"),
    [
        ("share_right", WRONG["share_right"][2], "['right', 'not right']"),
        ("pack", first_fit_in_order, "pack([5, 7, 5, 3], 10) gave [[0], [1], [2, 3]]: 3 rows, and 2 are enough: [["),
        ("pack", drops_what_fills_a_row, "it fills a row exactly"),
        ("pack", never_fills_a_row, "pack([6, 4], 10) gave [[0], [1]]: 2 rows, and 1 is enough"),
        ("pack", lambda lengths, row_length: [[n] for n in lengths], "a row lists indices, 0 to 1, not lengths"),
        ("one_per_row", WRONG["one_per_row"][0], "row [1] holds 12 tokens, and there is room for 10: what is longer"),
        ("one_per_row", WRONG["one_per_row"][2], "it fills a row exactly"),
        ("one_per_row", WRONG["one_per_row"][3], "row 1 is empty: what is longer than a row is left out"),
        ("one_per_row", WRONG["one_per_row"][4], "each row has to be a list"),
        ("reward", WRONG["reward"][3], "was run as Python code"),
        ("reward", WRONG["reward"][4], "Python code is no number"),
        ("reward", WRONG["reward"][5], "a box inside the thoughts does not count"),
        ("reward", WRONG["reward"][6], "the thoughts never end"),
        ("advantage", drawn_without_the_generator, "a generator of the same seed gave"),
        ("advantage", drawn_with_a_generator_of_its_own, "the same wrong answers are kept every time"),
        ("advantage", written_in_place, "it wrote into what it was given (argument 1)"),
        ("advantage", half_of_eight, "rewards [1, 1, 1, 1, -1, -1] gave"),
        ("temperature", WRONG["temperature"][3], "temperature(7, 30) gave 0.8068"),
        ("temperature", WRONG["temperature"][4], "half of 31 steps is 15.5"),
        ("keep_questions", WRONG["keep_questions"][0], "and it should be ['a'] (a: 1 of 2 right, b: 2 of 2 right)"),
        ("wilson", WRONG["wilson"][0], "wilson(0, 20) gave (0.0000, 0.0000), and it should be (0.0000, 0.1611): no"),
        ("wilson", WRONG["wilson"][2], "a share lies between 0 and 1; mind the brackets"),
        ("cache_step", WRONG["cache_step"][0], "a token sees itself, too"),
        ("cache_step", WRONG["cache_step"][2], "one more row a token"),
        ("document_mask", WRONG["document_mask"][0], "token 2 may look at token 0, and it is in another document"),
        ("document_mask", WRONG["document_mask"][1], "token 0 may look at token 1, and it is later"),
        ("labels", WRONG["labels"][0], "token 4 is the stop token, and without a loss on it the model never learns"),
        ("labels", WRONG["labels"][1], "token 0 is the question's"),
        ("labels", WRONG["labels"][2], "is padding"),
        ("labels", WRONG["labels"][4], "nothing is shifted here"),
        ("labels", WRONG["labels"][5], "the padding comes last"),
        ("keep_questions", WRONG["keep_questions"][4], "a: 1 of 2 right, b: 0 of 2 right"),
        ("pair", WRONG["pair"][2], "count 2: an answer was used twice"),
        ("pair", WRONG["pair"][3], "it wrote into what it was given"),
        ("parameters", WRONG["parameters"][3], "a count is an int"),
        ("position_ids", WRONG["position_ids"][4], "it has to give a list, and gave [0, 1, 2, 3] (Tensor)"),
        ("dpo_loss", WRONG["dpo_loss"][0], "the loss -log sigmoid(0) = ln 2 = 0.693"),
        ("dpo_loss", WRONG["dpo_loss"][5], "the loss is right and has no gradient"),
        ("dpo_loss", WRONG["dpo_loss"][6], "the loss is right, but its gradient is missing"),
        ("dpo_loss", WRONG["dpo_loss"][7], "the loss was inf, and it should be 110"),
        ("group_advantage", WRONG["group_advantage"][2], "divided by n, not by n - 1"),
        ("group_advantage", WRONG["group_advantage"][0], "gave [nan, nan, nan, nan], and it should be [0.00"),
        ("policy_gradient_loss", WRONG["policy_gradient_loss"][0], "the loss is right and has no gradient"),
        ("policy_gradient_loss", WRONG["policy_gradient_loss"][4], "its gradient is [0.00, 0.00], and it should be"),
        ("clipped", WRONG["clipped"][0], "ratio 3.0, advantage -1, epsilon 0.2 gave -1.20, and it should be -3.00"),
        ("clipped", WRONG["clipped"][2], "epsilon is an argument"),
        ("clipped", WRONG["clipped"][6], "the numbers are right and have no gradient"),
        ("two_means", WRONG["two_means"][4], "the numbers are right and have no gradient"),
        ("two_means", WRONG["two_means"][2], "the mean of tokens was 3.00, and it should be 2.40"),
        ("first_slip", WRONG["first_slip"][0], "gave None, and the first wrong one is 7+8=16: 0"),
        ("first_slip", WRONG["first_slip"][2], "['6', '5+2=8']) gave 0, and the first wrong one is 5+2=8: 1"),
        ("first_slip", WRONG["first_slip"][1], "no column is wrong: it should be None"),
        ("position_ids", WRONG["position_ids"][0], "a document starts at token 3, and it starts at 3 instead of 0"),
        ("rate_factor", WRONG["rate_factor"][3], "rate_factor(6, 7) gave 1.0, and it should be 0.714: 1 of 7 steps"),
        ("hardest_first", WRONG["hardest_first"][0], "their pass rates are [0.5, 1.0, 1.0], and the hardest have"),
        ("hardest_first", WRONG["hardest_first"][1], "more than three answers to hard"),
        ("paired_gain", WRONG["paired_gain"][0], "how much harder one is than another then drops out"),
        ("paired_gain", WRONG["paired_gain"][1], "divided by n - 1, not by n"),
        ("paired_gain", WRONG["paired_gain"][2], "it is after minus before"),
        ("paired_gain", WRONG["paired_gain"][3], "the standard deviation of a mean is s / sqrt(n)"),
        ("paired_gain", WRONG["paired_gain"][4], "s is the root of the variance"),
        ("paired_gain", WRONG["paired_gain"][5], "it is not in percent"),
        ("paired_gain", WRONG["paired_gain"][2], "it gave (-0.250, -0.450, -0.050), and it should"),
        ("plausible", WRONG["plausible"][0], "it kept [1], and it should keep [0, 2]: -9 nats are once in 8,103"),
        ("plausible", WRONG["plausible"][2], "exactly at the limit"),
        ("plausible", WRONG["plausible"][4], "give the answers themselves"),
        ("plausible", WRONG["plausible"][5], "it has to give a list"),
        ("sequence_logprob", WRONG["sequence_logprob"][0], "this is the mean over tokens"),
        ("sequence_logprob", WRONG["sequence_logprob"][1], "the logits at t are about token t + 1"),
        ("sequence_logprob", WRONG["sequence_logprob"][2], "the mask was not moved with the tokens"),
        ("sequence_logprob", WRONG["sequence_logprob"][7], "log_softmax over the vocabulary comes first"),
        ("sequence_logprob", WRONG["sequence_logprob"][6], "the numbers are right and have no gradient"),
    ],
)
def test_the_counter_example_teaches(name, attempt, lesson):
    verdict, why = of_name(name).grade(attempt)
    assert verdict == grading.WRONG and lesson in why, why
    assert len(why) < 400 and "\n" not in why, why


@pytest.mark.parametrize("attempt", [first_fit_decreasing, lambda *given: best_fit_of(*given, int.__le__)])
def test_other_good_packers_are_right_too(attempt):
    assert checks.PACK.grade(attempt) == (grading.RIGHT, "from here on the notebook uses your pack")


def test_a_reward_written_without_the_verifier_is_right_too():
    assert checks.REWARD.grade(reward_by(after_the_thoughts, same_number))[0] == grading.RIGHT


def test_a_right_answer_is_what_the_notebook_then_uses():
    def mine(verdicts):
        return verdicts.count("right") / len(verdicts)

    assert checks.SHARE_RIGHT.use(mine) is mine


def test_an_optimal_pairing_that_differs_from_the_reference_is_right_too():
    def lazy(right, wrong, count, rng):
        return checks.PAIR.reference(list(reversed(right)), list(reversed(wrong)), count, random.Random(7))

    assert checks.PAIR.grade(lazy)[0] == grading.RIGHT


def test_an_attempt_that_raises_is_shown_not_raised():
    verdict, why = checks.PACK.grade(lambda lengths, row_length: 1 / 0)
    assert verdict == grading.WRONG and why.startswith("called with [10, 4], 10 it raised ZeroDivisionError: ")
    verdict, why = checks.FIRST_SLIP.grade(lambda columns: next(
        (place for place, (terms, written) in enumerate(column.split("=") for column in columns)
         if sum(map(int, re.findall(r"[-+]?\d+", terms))) != int(written)), None))
    assert verdict == grading.WRONG and why.startswith("called with ['6', '5+2=8'] it raised ValueError: not enough")
    for check, result in ((checks.PACK, 3), (checks.ADVANTAGE, [1]), (checks.TWO_MEANS, (torch.ones(2), torch.ones(2))),
                          (checks.FLIPS, 3), (checks.HARDEST_FIRST, ["a"])):
        verdict, why = check.grade(lambda *_, result=result: result)
        assert verdict == grading.WRONG and "raised" not in why and re.search("gave|have to give", why), why


def test_lines_that_end_in_the_stub_s_return_are_told_so():
    def begun(verdicts):
        """Not finished."""
        right = verdicts.count("right")  # noqa: F841
        return NotImplemented

    def stub(verdicts):
        """The share."""
        return NotImplemented  # your line

    assert "your lines are there, and it still ends in" in checks.SHARE_RIGHT.grade(begun)[1]
    assert checks.SHARE_RIGHT.grade(stub) == (grading.NOT_ATTEMPTED, "the notebook goes on with the reference")


def test_an_advantage_with_trl_s_epsilon_is_right():
    def with_epsilon(rewards):
        return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True, correction=0) + 1e-4)

    assert checks.GROUP_ADVANTAGE.grade(with_epsilon)[0] == grading.RIGHT


def test_an_endless_attempt_is_stopped(monkeypatch):
    monkeypatch.setattr(grading, "TIME_LIMIT", 0.3)

    def endless(lengths, row_length):
        while True:
            pass

    verdict, why = checks.PACK.grade(endless)
    assert verdict == grading.WRONG and "not ended" in why


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signal that ends a sleep")
def test_a_sleeping_attempt_is_stopped_too(monkeypatch):
    monkeypatch.setattr(grading, "TIME_LIMIT", 0.3)
    before, began = signal.getsignal(signal.SIGALRM), time.monotonic()
    verdict, why = checks.PACK.grade(lambda lengths, row_length: time.sleep(10))
    assert verdict == grading.WRONG and "not ended" in why
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_where_no_signal_can_be_had_an_endless_attempt_is_stopped(monkeypatch):
    monkeypatch.setattr(grading, "TIME_LIMIT", 0.3)
    monkeypatch.delattr(signal, "setitimer", raising=False)
    test_an_endless_attempt_is_stopped(monkeypatch)


def test_a_check_outside_the_main_thread_gives_its_verdict():
    found = []
    thread = threading.Thread(target=lambda: found.append(checks.PACK.grade(first_fit_in_order)[0]))
    thread.start()
    thread.join()
    assert found == [grading.WRONG]


def test_the_learner_s_own_ctrl_c_is_not_a_verdict():
    def interrupted(lengths, row_length):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.PACK.grade(interrupted)


def test_an_attempt_that_leaves_the_program_is_wrong():
    verdict, why = checks.PACK.grade(lambda lengths, row_length: sys.exit())
    assert verdict == grading.WRONG and "exit()" in why


def test_exit_in_a_notebook_does_not_end_the_kernel(monkeypatch):
    class Shell:
        ended = False

        def ask_exit(self):
            self.ended = True

    shell = Shell()
    monkeypatch.setattr(grading, "get_ipython", lambda: shell)
    leave = ExitAutocall(shell)  # what `exit` is in a notebook
    verdict, why = checks.PACK.grade(lambda lengths, row_length: leave())
    assert verdict == grading.WRONG and "exit()" in why and not shell.ended
    leave()
    assert shell.ended, "after the check it does again"


def test_a_forgotten_return_is_told():
    verdict, why = checks.PACK.grade(lambda lengths, row_length: None)
    assert verdict == grading.WRONG and "`return`" in why


def test_the_schedule_to_write_is_the_course_s():
    schedule = grpo.anneal(presets.LAB.grpo)
    assert [checks.TEMPERATURE.reference(step, 30) for step in range(30)] == pytest.approx(
        [schedule(step, 30) for step in range(30)])


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_a_card_has_all_of_an_exercise_folded(check):
    html, exercise = check.card().data, check.exercise
    folded = ["Hint 1", "Hint 2", "Hint 3", "Reference solution"]
    assert [html.index(f"<summary>{name}</summary>") for name in folded] == sorted(
        html.index(f"<summary>{name}</summary>") for name in folded)
    assert html.count("<details>") == 4 and "<details open" not in html
    assert html.index("<details>") > html.index(grading.text(exercise.statement)) > html.index("★" * exercise.stars)
    assert f"def {check.reference.__name__}(" in check.reference_source()
    assert 1 <= exercise.stars <= 3 and len(set(exercise.hints)) == 3


def test_the_teacher_s_table_is_that_of_the_exercises():
    page = (paths.ROOT / "docs" / "teaching.md").read_text()
    begin, end = "<!-- exercises: tests/lab/test_checks.py -->\n", "<!-- end of exercises -->"
    table = page.partition(begin)[2].partition(end)[0]
    rows = [("notebook", "exercise", "what", "stars", "minutes")]
    rows += [(check.exercise.notebook, f"`{check.name}`", check.exercise.title, "★" * check.exercise.stars,
              check.exercise.minutes) for check in checks.ALL]
    assert table == "\n".join(markdown_table(rows)) + "\n"


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_a_stub_can_be_pasted_and_waits(check):
    (function,) = ast.parse(check.exercise.stub).body
    page = {}
    exec(check.exercise.stub, page)  # noqa: S102 - the course's own text
    assert check.grade(page[function.name])[0] == grading.NOT_ATTEMPTED
    assert max(map(len, check.exercise.stub.splitlines())) <= 120


# ------------------------------------------------------------------ the cells of the notebooks


def exercises():
    """(cells from the stub on as syntax trees, the check's assignment), one an exercise."""
    for source in sorted(notebooks.SOURCES.glob("*.py")):
        trees = [ast.parse(text) for text in notebooks.code(notebooks.build(source))]
        for place, tree in enumerate(trees):
            for line in tree.body:
                if isinstance(line, ast.Assign) and re.match(r"checks\.\w+\.use\(", ast.unparse(line.value)):
                    yield pytest.param(trees[place - 1 :], line, id=f"{source.stem}-{line.value.args[0].id}")


def names_read(tree):
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]


@pytest.mark.parametrize(("cells", "line"), list(exercises()))
def test_no_cell_gives_the_attempt_s_name_to_the_reference(cells, line):
    attempt, (target,) = line.value.args[0].id, line.targets
    assert cells[0].body[-1].name == attempt
    check = getattr(checks, line.value.func.value.attr)
    assert ast.unparse(cells[0].body[-1]) == ast.unparse(ast.parse(check.exercise.stub).body[0])
    for cell in cells:
        assert attempt not in [node.id for node in ast.walk(cell) if isinstance(node, ast.Name)
                               and isinstance(node.ctx, ast.Store)]
    used = sum((names_read(cell) for cell in cells[1:]), [])
    assert used.count(attempt) == 1, "after the check the notebook uses what the check returned"
    assert target.id in used


@pytest.mark.parametrize(("cells", "line"), list(exercises()))
def test_a_check_cell_run_twice_gives_the_same_verdict(cells, line, monkeypatch):
    said = []
    monkeypatch.setattr(grading, "display", lambda html: said.append(html.data))
    page, attempt = {"checks": checks}, line.value.args[0].id

    def run(*statements):
        for statement in statements:
            exec(ast.unparse(statement), page)  # noqa: S102 - the notebook's own cells

    run(cells[0].body[-1], line, line)
    assert len(said) == 2 and all(f": {grading.NOT_ATTEMPTED}" in html for html in said), said
    name = getattr(checks, line.value.func.value.attr).name
    page[attempt] = WRONG[name][0]
    run(line, line)
    assert len(said) == 4 and all(f": {grading.WRONG}" in html for html in said[2:]), said
    page[attempt] = page[line.targets[0].id]  # as a learner may still do
    run(line)
    assert "this is the reference" in said[4] and grading.NOT_ATTEMPTED in said[4]


def test_the_message_is_escaped(monkeypatch):
    said = []
    monkeypatch.setattr(grading, "display", lambda html: said.append(html.data))
    checks.SHARE_RIGHT.use(lambda verdicts: "<script>1</script>")
    assert "<script>" not in said[0] and grading.WRONG in said[0]
