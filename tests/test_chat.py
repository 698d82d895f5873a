"""The words on the wire: the tokenizer loses nothing, and turns look as Phi-4-mini's."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_lab import chat, models
from phi_lab.errors import UserError
from phi_lab.stages.language_modeling import IGNORE, document

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
    assert len(tokenizer) <= chat.VOCABULARY + 2  # <think> and </think> come on top


def test_tags_and_turns_are_single_tokens_wherever_they_stand(tokenizer):
    for mark in MARKS:
        (token,) = tokenizer(mark).input_ids
        assert tokenizer(f"a{mark}7").input_ids == [*tokenizer("a").input_ids, token, *tokenizer("7").input_ids]
    assert tokenizer.eos_token == chat.END and tokenizer.pad_token == chat.ENDOFTEXT
    assert tokenizer.eos_token_id == models.config("phi-nano").eos_token_id
    assert tokenizer.pad_token_id == models.config("phi-nano").pad_token_id


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
    for shipped in models.TOKENIZER.iterdir():
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes(), shipped.name


def test_no_tokenizer(tmp_path):
    with pytest.raises(UserError, match="tokenizer.json is missing"):
        models.load_tokenizer(tmp_path)


def test_completion_text():
    assert chat.completion_text("1+2=3.", "3") == r"<think>1+2=3.</think>\boxed{3}"
    assert chat.completion_text(None, "3") == r"\boxed{3}"


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_document_learns_the_answer_and_where_to_stop(tokenizer, prompt, completion):
    ids, labels = document(tokenizer, prompt, completion)
    asked = tokenizer(chat.prompt_text(prompt)).input_ids
    assert len(ids) == len(labels) and ids[: len(asked)] == asked
    assert labels[: len(asked)] == [IGNORE] * len(asked)
    assert labels[len(asked) :] == ids[len(asked) :] == [*tokenizer(completion).input_ids, tokenizer.eos_token_id]
