"""How a row of somebody else's set is read: where its question, its gold answer and its traces are.

A set whose columns have names of their own stands in `SCHEMAS`, which has a test a row (tests/problems/test_rows.py);
every other is read by the usual names. Values are read by their form: a string, a list of turns, a list of content
parts, a nested object. `Columns` names what is called otherwise, with dots into nested objects.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from phi_lab import verify
from phi_lab.core.errors import UserError
from phi_lab.model import chat

PROMPTS = ("problem", "question", "prompt", "Problem", "Question", "query")
TURNS = ("conversations", "messages", "conversation")
ANSWERS = ("answer", "final_answer", "correct", "expected_answer", "ground_truth", "answerKey", "reward_model",
           "Answer", "ground_truth_solution", "solution")
TRACES = ("generations", "traces", *TURNS, "generated_solution", "completion", "response", "solution")
THOUGHTS = ("reasoning_content", "thinking", "thoughts", "thought", "reasoning")  # columns beside a trace
NESTED = ("ground_truth", "reference_answer", "answer", "value")  # of a gold answer that is an object
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SYSTEM, ASKS, ANSWERING = {"system", "developer"}, {"user", "human"}, {"assistant", "gpt", "model", "bot", "chatgpt"}
THOUGHT_MARKS = (("<|begin_of_thought|>", chat.THINK), ("<|end_of_thought|>", chat.THINK_END),
                 ("<|begin_of_solution|>", ""), ("<|end_of_solution|>", ""))  # of Bespoke-Stratos and OpenThoughts


@dataclass(frozen=True)
class Columns:
    """The columns of question, answer and traces, where their names are not the usual ones. A dot leads into an object
    or a list: "reward_model.ground_truth", "messages.0.info.reference_answer".
    """

    prompt: str | None = None
    answer: str | None = None
    traces: str | None = None


USUAL = Columns()


@dataclass(frozen=True)
class Schema:
    """A known set's columns. It is recognised by `marks`, columns that it alone has; traces and thoughts stand in the
    same order.
    """

    name: str
    marks: tuple[str, ...]
    prompt: str
    answer: str
    traces: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()


SCHEMAS = (
    Schema("OpenThoughts-114k, metadata", ("deepseek_solution", "ground_truth_solution"), "problem",
           "ground_truth_solution", ("deepseek_solution",), ("deepseek_reasoning",)),
    Schema("s1K-1.1", ("deepseek_attempt", "deepseek_thinking_trajectory"), "question", "solution",
           ("deepseek_attempt",), ("deepseek_thinking_trajectory",)),
    Schema("DeepMath-103K", ("r1_solution_1",), "question", "final_answer",
           ("r1_solution_1", "r1_solution_2", "r1_solution_3")),
    Schema("OpenMathReasoning", ("generated_solution", "expected_answer"), "problem", "expected_answer",
           ("generated_solution",)),
    Schema("verl, DAPO, Skywork-OR1", ("reward_model", "prompt"), "prompt", "reward_model"),
)


def recognise(row: Mapping, set_name: str, named: Columns, gold_in_traces: bool) -> tuple[Columns, Schema | None]:
    """The columns of a set from its first row, and its schema where that is a known one.

    `gold_in_traces`: a set that was published with right traces needs no gold answer. Raises UserError for a set
    without a question or a gold answer, and for a named column that is not there.
    """
    schema = next((schema for schema in SCHEMAS if set(schema.marks) <= row.keys()), None)
    for column in (named.prompt, named.answer, named.traces):
        if column and not _is_there(row, column):
            raise UserError(f"{set_name}: no column {column!r}; it has {', '.join(row)}")
    usual = next((name for name in (*PROMPTS, *TURNS) if name in row), None)
    prompt = named.prompt or (schema.prompt if schema else usual)
    if not prompt:
        raise UserError(f"{set_name}: none of the columns {', '.join(PROMPTS[:3])}; it has {', '.join(row)}: name the "
                        "question's with --prompt-column")
    usual = next((name for name in ANSWERS if name in row and not isinstance(row[name], bool)), None)
    answer = named.answer or (schema.answer if schema else usual)
    if not answer and not gold_in_traces:
        raise UserError(f"{set_name}: none of the columns {', '.join(ANSWERS[:4])}, ..., so no gold answer; it has "
                        f"{', '.join(row)}: name it with --answer-column (a.b for a nested one), or choose a set that "
                        "has one; without a gold answer nothing can be verified")
    traces = named.traces or (None if schema else next((name for name in TRACES if name in row), None))
    return Columns(prompt, answer, traces), schema


def question_of(row: Mapping, column: str) -> str:
    """The text of a row's question with its lettered choices, without a system prompt; empty where it has none, or more
    than one: several questions have no one answer.
    """
    value = value_of(row, column)
    asked = [text for role, text in turns(value) if role in ASKS] if is_turns(value) else [text_of(value)]
    return "\n".join([asked[0].strip(), *_choice_lines(row)]) if len(asked) == 1 and asked[0].strip() else ""


def gold_of(row: Mapping, column: str) -> str:
    """The gold answer: of a list all, of an object the one with a usual name, of a choice its letter; else what follows
    GSM8K's ####, the last box, or all of it. Empty where there is none.
    """
    value = value_of(row, column)
    lettered, text = choices(row), _plain_gold(value)
    same = [letter for letter, choice in lettered if choice == text and text not in dict(lettered)]
    by_place = isinstance(value, int) and "choices" in row and 0 <= value < len(lettered)  # as in MMLU
    if by_place or len(same) == 1:
        return lettered[value][0] if by_place else same[0]
    return final_answer(text)


def _plain_gold(value: Any) -> str:
    if isinstance(value, str) and value.startswith('["') and value.endswith('"]'):  # Skywork's, a list in a string
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping):
        value = next((value[name] for name in NESTED if value.get(name) is not None), None)
        return _plain_gold(value)
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_plain_gold, value)))
    return "" if value is None else str(value).strip()


def final_answer(text: str) -> str:
    """The final answer in a gold column: what follows GSM8K's ####, the last box, or all of it."""
    _, marker, after = text.rpartition("####")
    if marker:
        return after.strip()
    return (verify.extract(text) or "") if "\\boxed" in text else text.strip()


def traces_of(row: Mapping, columns: Columns, schema: Schema | None) -> list[str]:
    """The traces of a row in this course's form, with the thoughts between <think> tags."""
    found = []
    if columns.traces:
        value = value_of(row, columns.traces)
        several = value if isinstance(value, list) and not is_turns(value) else [value]
        found = list(map(_trace, several))
        found = [_with_thought_beside(row, columns, found[0])] if len(found) == 1 else found
    elif schema:
        thoughts = (*schema.thoughts, *[""] * len(schema.traces))
        found = [with_thoughts(text_of(row.get(thought)), text_of(row.get(trace)))
                 for trace, thought in zip(schema.traces, thoughts, strict=False)]
    return [with_think_tags(text) for text in found if text]


def _with_thought_beside(row: Mapping, columns: Columns, trace: str) -> str:
    """A trace with the thought that stands in a column of its own."""
    taken = (columns.prompt, columns.answer, columns.traces)
    thought = next((row[name] for name in THOUGHTS if row.get(name) and name not in taken), "")
    return trace if chat.THINK_END in trace or not isinstance(thought, str) else with_thoughts(thought, trace)


def _trace(value: Any) -> str:
    return answered(value) if is_turns(value) else text_of(value)


def with_thoughts(thoughts: str, text: str) -> str:
    """Thoughts between <think> tags before a text; one that nothing follows was cut, and stays open."""
    return f"{chat.THINK}{thoughts}{chat.THINK_END if text else ''}{text}" if thoughts else text


def with_think_tags(text: str) -> str:
    """A text whose thought is marked as here. A closing tag alone shows that a chat template wrote the opening one."""
    for mark, tag in THOUGHT_MARKS:
        text = text.replace(mark, tag)
    return chat.with_opening_tag(text.strip())


def is_turns(value: Any) -> bool:
    """Whether a value is a conversation: a list of objects with a speaker each."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) and _role(turn) for turn in value)


def turns(value: list) -> Iterator[tuple[str, str]]:
    """(speaker, text) of every turn of a conversation but the system prompt's; a thought that a turn holds by itself is
    put before its text.
    """
    for turn in value:
        if (role := _role(turn)) in SYSTEM:
            continue
        text = text_of(next((turn[name] for name in ("value", "content", "text") if turn.get(name)), ""))
        yield role, with_thoughts(text_of(turn.get("reasoning_content") or turn.get("thinking")), text)


def answered(value: list) -> str:
    """The first answer in a conversation; empty where it has none."""
    return next((text for role, text in turns(value) if role in ANSWERING), "")


def _role(turn: Mapping) -> str:
    return str(turn.get("from") or turn.get("role") or turn.get("speaker") or "").casefold()


def text_of(value: Any) -> str:
    """The text of a value: a string, a number, or a list of content parts. Raises ValueError for a part that is no
    text, such as an image.
    """
    if isinstance(value, list):
        return "".join(map(text_of, value))
    if isinstance(value, Mapping):
        text = next((value[name] for name in ("text", "content", "value") if isinstance(value.get(name), str)), None)
        if text is None:
            raise ValueError(f"an object with {', '.join(map(str, value))} where text belongs")
        return text
    return "" if value is None else str(value)


def value_of(row: Any, path: str) -> Any:
    """What stands at a column, or at a path of names and numbers with dots; None where nothing does."""
    if isinstance(row, Mapping) and path in row:
        return row[path]
    head, dot, rest = path.partition(".")
    if isinstance(row, list) and head.isdigit() and int(head) < len(row):
        value = row[int(head)]
    else:
        value = row.get(head) if isinstance(row, Mapping) else None
    return value_of(value, rest) if dot else value


def _is_there(row: Mapping, path: str) -> bool:
    return path in row or value_of(row, path) is not None


def choices(row: Mapping) -> list[tuple[str, str]]:
    """(letter, text) of a row's choices, from a list, a dictionary, or ARC's two lists; [] where there are none."""
    value = next((row[name] for name in ("options", "choices") if row.get(name)), None)
    if isinstance(value, Mapping) and isinstance(value.get("text"), list) and isinstance(value.get("label"), list):
        return list(zip(map(str, value["label"]), map(str, value["text"]), strict=False))
    if isinstance(value, Mapping):  # a letter that another row of the set has, and this one has not, is null
        return [(str(letter), str(text)) for letter, text in value.items() if text is not None]
    if not isinstance(value, list):
        return []
    texts = [str(text).strip() for text in value]
    if _have_letters(texts):
        return [(text[0], text[2:].strip()) for text in texts]
    return list(zip(LETTERS, texts, strict=False))


def _have_letters(texts: list[str]) -> bool:
    """Whether choices come with their letters, as AQuA's do: "A)12"."""
    return all(text[:1] == letter and text[1:2] in list(").:") for letter, text in zip(LETTERS, texts, strict=False))


def _choice_lines(row: Mapping) -> list[str]:
    options = row.get("options")
    if isinstance(options, list) and _have_letters(texts := [str(text).strip() for text in options]):
        return texts
    return [f"{letter}) {text}" for letter, text in choices(row)]


def with_lettered_choices(row: dict) -> dict:
    """GPQA's rows hold one right and three wrong answers: choices A to D, in an order that depends on the question."""
    if "Correct Answer" not in row:
        return row
    names = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
    wanted = [str(row[name]).strip() for name in names]
    order = random.Random(row["Question"]).sample(range(4), 4)
    return {"problem": row["Question"], "options": [wanted[place] for place in order], "answer": "ABCD"[order.index(0)]}
