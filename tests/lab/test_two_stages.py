"""Two stages side by side: where their answers part, what is said of a question, and nothing of it is interpreted."""

import pytest

from phi_lab.core.paths import SHIPPED
from phi_lab.lab import tables, two_stages
from phi_lab.lab.two_stages import Answer
from phi_lab.model import checkpoints

EVIL = "<img src=x onerror=alert(1)>"
THOUGHT = r"<think>47+38,-12.47+38:7+8=15,4+3+1=8;85,-12.85-12:5-2=3,8-1=7;73.</think>\boxed{73}"
PROBLEM = {"prompt": "Ann has 7 coins. Then Ann finds 8 more. How many coins does Ann have now?", "answer": "15"}


@pytest.fixture(scope="module")
def models():
    return {stage: checkpoints.load(SHIPPED / stage) for stage in ("base", "sft", "grpo")}


def canned(monkeypatch, *replies):
    """Each "model" is its index among the replies, a text each."""
    monkeypatch.setattr(two_stages, "answers", lambda model, tokenizer, questions: [
        Answer(replies[model], list(replies[model])) for _ in questions])
    return {name: number for number, name in enumerate(("sft", "grpo"))}


@pytest.mark.parametrize(("one", "other", "place"), [
    ("abc", "abd", 2), ("abc", "abc", None), ("abc", "ab", 2), ("", "a", 0), ("", "", None),
])
def test_where_answers_part(one, other, place):
    assert two_stages.first_difference(list(one), list(other)) == place


@pytest.mark.parametrize(("what", "row"), [("47+38,-12", "plan"), ("4+3+1=8", "47+38"), ("85-12", "85-12"),
                                           ("5-2=3", "85-12"), ("\\boxed", "answer")])
def test_the_step_that_holds_the_place_is_marked(what, row):
    page = tables.laid_out(THOUGHT, parts_at=THOUGHT.index(what))
    (marked,) = [line for line in page.split("<tr>") if "➔" in line]
    first = marked.split("</td>")[0]
    assert row in first
    assert "➔" not in tables.laid_out(THOUGHT)


def test_a_text_is_marked_where_it_parts_and_escaped():
    page = tables.laid_out(f"ab{EVIL}", parts_at=1)
    before, _, after = page.partition("➔")
    assert before.partition(">")[2].startswith("a<b") and "b&lt;img" in after and EVIL not in page


def test_the_range_check_is_that_of_chat():
    assert two_stages.note("Compute 47+38.") == ""
    assert two_stages.note("Compute 99+1.").startswith("100 lies outside the small world")
    assert two_stages.note("Compute 5-5+7.").startswith("0 lies outside"), "0 is no number of the world"
    assert "No sum can be read" in two_stages.note("Who are you?")


def test_two_answers_with_verdicts_and_the_parting(monkeypatch):
    models = canned(monkeypatch, THOUGHT, THOUGHT.replace("8-1=7;73", "8-1=6;63").replace("{73}", "{63}"))
    page = two_stages.shown(models, None, "Compute 47+38-12.")
    assert page.count("➔") == 3 and "<b>Answer: 73</b>" in page
    assert page.count("✓ right") == 1 and page.count("✗ wrong") == 1
    assert f"The first {THOUGHT.index('7;73')} tokens are the same; then &#x27;7&#x27; on the left" in page
    assert "<small>" not in page.partition("<table")[0], "nothing to note"


def test_a_word_problem_has_a_verdict_where_its_answer_is_known(monkeypatch):
    models = canned(monkeypatch, "\\boxed{15}", "\\boxed{15}")
    known = two_stages.shown(models, None, PROBLEM["prompt"], "15")
    assert known.count("✓ right") == 2 and "Both answers are the same" in known and "No sum" not in known
    unknown = two_stages.shown(models, None, PROBLEM["prompt"])
    assert "right" not in unknown.replace("on the right", "") and "No sum can be read" in unknown


def test_hostile_questions_and_answers_are_shown_and_not_interpreted(monkeypatch):
    page = two_stages.shown(canned(monkeypatch, EVIL, f"{EVIL}!"), None, EVIL * 100)
    assert EVIL not in page and "__import__" not in page
    assert page.count("&lt;img") < 100, "a question is cut"
    assert "No sum can be read" in two_stages.note("__import__('os').system('false')")
    assert "Type a question" in two_stages.shown({}, None, "  ")


def test_the_problem_that_the_second_model_solves_and_the_first_does_not(monkeypatch):
    replies = {"a": ("\\boxed{1}", "\\boxed{1}"), "b": ("\\boxed{1}", "\\boxed{2}"), "c": ("\\boxed{2}", "\\boxed{1}")}
    monkeypatch.setattr(two_stages, "answers", lambda model, tokenizer, questions: [
        Answer(replies[one][model], list(replies[one][model])) for one in questions])
    problems = [{"prompt": name, "answer": "1"} for name in replies]
    models = {"sft": 0, "grpo": 1}
    assert two_stages.parting_problem(models, None, problems)["prompt"] == "c"
    assert two_stages.parting_problem(models, None, problems[:2])["prompt"] == "b", "else one with other answers"
    assert two_stages.parting_problem(models, None, problems[:1])["prompt"] == "a"


def test_real_models_part_at_the_first_token_where_one_thinks(models, tokenizer):
    pair = {name: models[name] for name in ("base", "grpo")}
    page = two_stages.shown(pair, tokenizer, "Compute 47+38.")
    assert "The first 0 tokens are the same" in page and "&lt;think&gt;" in page and "4+3+1=8" in page


def test_the_widget_takes_other_stages_and_questions(models, tokenizer):
    box = two_stages.widget(models, tokenizer, PROBLEM, ("sft", "grpo"))
    asked, left, right, view = box.children
    pair = {name: models[name] for name in ("sft", "grpo")}
    assert view.value == two_stages.shown(pair, tokenizer, PROBLEM["prompt"], "15"), "its first state is the twin"
    left.value = "base"
    assert "base</th>" in view.value
    asked.value = "Compute 99+1."
    assert "100 lies outside" in view.value and "<b>Answer: 100</b>" in view.value
    right.value = "base"
    assert "two different stages" in view.value
