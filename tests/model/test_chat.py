"""The words on the wire: the tokenizer loses nothing, and turns look as Phi-4-mini's. And what `phi-lab chat` says."""

import random
import re
import string
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_lab import cli, sampling
from phi_lab.cli.chat import GREETING
from phi_lab.core.errors import UserError
from phi_lab.core.paths import TOKENIZER
from phi_lab.model import chat, checkpoints, shapes
from phi_lab.problems import arithmetic, parse_question, worked_solutions
from phi_lab.stages.packing import IGNORE, document

MARKS = (chat.SYSTEM, chat.USER, chat.ASSISTANT, chat.END, chat.ENDOFTEXT, chat.THINK, chat.THINK_END)
WORDS = st.sampled_from([*MARKS, "\\boxed{73}", "85-12:5-2=3,8-1=7;73.", " no ", "check ", "Then Ann ", "\n", "  "])


@settings(max_examples=300)
@given(st.lists(st.one_of(st.text(), WORDS)).map("".join))
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@settings(max_examples=200)
@given(st.text(alphabet=string.digits + string.ascii_letters + string.punctuation + " "))
def test_a_digit_is_always_one_token(tokenizer, text):
    pieces = [tokenizer.decode([token]) for token in tokenizer(text).input_ids]
    assert [piece for piece in pieces if re.search(r"\d", piece)] == re.findall(r"\d", text)


def test_no_entry_of_the_vocabulary_holds_a_digit_and_more(tokenizer):
    assert [word for word in tokenizer.get_vocab() if re.search(r"\d", word) and len(word) > 1] == []
    assert len(tokenizer) <= chat.MAX_VOCABULARY + 2  # <think> and </think> come on top


def test_tags_and_turns_are_single_tokens_wherever_they_stand(tokenizer):
    for mark in MARKS:
        (token,) = tokenizer(mark).input_ids
        assert tokenizer(f"a{mark}7").input_ids == [*tokenizer("a").input_ids, token, *tokenizer("7").input_ids]
    assert tokenizer.eos_token == chat.END and tokenizer.pad_token == chat.ENDOFTEXT
    assert tokenizer.eos_token_id == shapes.phi_config("phi-nano").eos_token_id
    assert tokenizer.pad_token_id == shapes.phi_config("phi-nano").pad_token_id


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="<")))
def test_the_chat_template_is_prompt_text(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == chat.prompt_text(question) == f"<|user|>{question}<|end|><|assistant|>"


def test_the_template_writes_system_turns_and_finished_conversations(tokenizer):
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|system|>system<|end|><|user|>user<|end|><|assistant|>assistant<|end|>"


def test_building_it_again_gives_the_shipped_tokenizer(tmp_path):
    chat.build_tokenizer(tmp_path)
    for shipped in TOKENIZER.iterdir():
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes(), shipped.name


def test_no_tokenizer(tmp_path):
    with pytest.raises(UserError, match="tokenizer.json is missing"):
        checkpoints.load_tokenizer(tmp_path)


def test_completion_text():
    assert chat.completion_text("1+2=3.", "3") == r"<think>1+2=3.</think>\boxed{3}"
    assert chat.completion_text(None, "3") == r"\boxed{3}"


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_document_learns_the_answer_and_where_to_stop(tokenizer, prompt, completion):
    ids, labels = document(tokenizer, prompt, completion)
    prompt_ids = tokenizer(chat.prompt_text(prompt)).input_ids
    assert len(ids) == len(labels) and ids[: len(prompt_ids)] == prompt_ids
    assert labels[: len(prompt_ids)] == [IGNORE] * len(prompt_ids)
    learned = [*tokenizer(completion).input_ids, tokenizer.eos_token_id]
    assert labels[len(prompt_ids) :] == ids[len(prompt_ids) :] == learned


# ------------------------------------------------------------------ phi-lab chat

README = Path(__file__).parents[2] / "README.md"


def chat_output(capsys, question):
    """What `phi-lab chat` prints for one question."""
    assert cli.main(["chat", question]) == 0
    return capsys.readouterr().out


def answers(monkeypatch, text):
    """Whatever `phi-lab chat` asks, the model says `text`."""
    monkeypatch.setattr(sampling, "sample", lambda *args, **settings: [[SimpleNamespace(text=text)]])


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_the_world_s_own_expressions_are_computed_and_lie_inside(seed, level):
    problem = arithmetic.sample(random.Random(seed), level)
    words = problem.family not in ("expression", "fraction") and not re.fullmatch(r"Find [^a-z]+", problem.prompt)
    assert parse_question.evaluate_question(problem.prompt) == (None if words else (Fraction(problem.answer), None))


@pytest.mark.parametrize(
    ("question", "answer", "outside"),
    [
        ("Compute 98+1.", 99, None), ("Compute 99+1.", 100, 100), ("compute (47 + 38)*3 - 12", 243, 255),
        ("120-30", 90, 120), ("What is 12-57?", -45, -45), ("Compute 47-47.", 0, 0), ("Compute 50/4.", "25/2", "25/2"),
        ("Find 12-(3+4).", 5, None), ("Compute 8/9+9/7 as a fraction.", "137/63", 137), ("Compute 100.", 100, 100),
        ("What is 3/4+5/6 as a fraction?", "19/12", None), ("What fraction is (9/4+7/5)*2?", "73/10", 146),
    ],
)
def test_what_is_typed_is_computed(question, answer, outside):
    value = None if outside is None else Fraction(outside)
    assert parse_question.evaluate_question(question) == (Fraction(answer), value)


@pytest.mark.parametrize(
    "question",
    [
        "", "Hello", "Compute .", "Compute 5/0.", "Compute 2**9.", "Compute 7//2.", "Compute 4+.", "Compute (4+5.",
        "Compute 1 2.", "Compute x+1.", "Compute 007+1.", "Compute ().", "Compute __import__('os').",
        "Compute " + "(" * 90 + "1" + ")" * 90,
        "Compute 1.5+2.", "Ann has 12 nuts. Then Ann loses 5. How many nuts does Ann have now?",
    ],
)
def test_what_cannot_be_computed(question):
    assert parse_question.evaluate_question(question) is None


def test_readme_s_example_and_the_greeting_s_are_answered_right(capsys, shipped):
    shipped("grpo")
    (readme,) = re.findall(r'phi-lab chat "(.+?)"', README.read_text(encoding="utf-8"))
    (greeting,) = re.findall(r"such as: (.+?\.) ", GREETING)
    for question in {readme, greeting}:
        assert parse_question.evaluate_question(question).outside is None
        output = chat_output(capsys, question)
        assert output.endswith("}   right\n") and "note:" not in output


def test_a_question_outside_the_world_is_announced_before_the_answer(capsys, shipped):
    shipped("grpo")
    output = chat_output(capsys, "Compute 99+1.").splitlines()
    world = "the small world (whole numbers from 1 to 99)"
    assert output[0] == f"note: 100 lies outside {world}: do not count on the answer"
    assert len(output) > 1 and not any("note:" in line for line in output[1:])


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (r"<think>12+12:2+2=4,1+1=2;24.</think>\boxed{24}", "\\boxed{24}   right\n"),
        (r"<think>12+12:2+2=5,1+1=2;25.</think>\boxed{25}", "\\boxed{25}   wrong: it is 24\n"),
        (r"<think>12+12:2+2=4,", "   unfinished: it is 24\n"),
    ],
)
def test_the_verdict_stands_beside_the_answer(capsys, monkeypatch, shipped, text, end):
    shipped("grpo")
    answers(monkeypatch, text)
    assert chat_output(capsys, "Compute 12+12.").endswith(end)


def test_no_verdict_where_the_question_cannot_be_computed(capsys, monkeypatch, shipped):
    shipped("grpo")
    answers(monkeypatch, r"<think>12-5:12-5=7,1-1=0;7.</think>\boxed{7}")
    output = chat_output(capsys, "Ann has 12 nuts. Then Ann loses 5. How many nuts does Ann have now?")
    assert output.endswith("=0  = 7\n\\boxed{7}\n")


def test_a_thought_is_laid_out_step_by_step():
    thought = "84-57,+36.84-57:14-7=8 no 14-7=7,8-5-1=2;27.check 27+57:7+7=14,2+5+1=8;84 ok.27,+36.27+36:13,6;63."
    assert chat.format_completion(f"<think>{thought}</think>\\boxed{{63}}").splitlines() == [
        "plan         84-57, +36",
        "84-57        14-7=8 no 14-7=7, 8-5-1=2  = 27",
        "check 27+57  7+7=14, 2+5+1=8            = 84 ok",
        "                                        = 27     then +36",
        "27+36        13, 6                      = 63",
        "\\boxed{63}",
    ]


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from(worked_solutions.STYLES))
def test_laying_out_loses_nothing(seed, level, style):
    rng = random.Random(seed)
    work, answer = worked_solutions.write_solution(arithmetic.sample(rng, level), style, rng)
    laid = chat.format_completion(chat.completion_text(work, answer))
    assert re.findall(r"\d+", laid) == re.findall(r"\d+", work + answer)
    assert laid.count("\n") == work.count(".")


@pytest.mark.parametrize("text", ["", "Four.", r"\boxed{4}", "<think>I think 3.5 is near", "<think>"])
def test_other_texts_stay_as_they_are(text):
    assert chat.format_completion(text) == text


def test_a_thought_in_words_only_gets_a_new_line():
    thought = "<think>It is 3.5, so 4.</think>"
    assert chat.format_completion(rf"{thought}\boxed{{4}}") == f"{thought}\n\\boxed{{4}}"
