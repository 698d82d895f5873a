"""Rows of published sets, in the shapes that the sets have; words and numbers are this project's own."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_lab.core.errors import UserError
from phi_lab.core.files import write_rows
from phi_lab.problems import rows, sources

ASKED, WORK = "How many are 5 boxes of 6?", "5*6=30"
THOUGHT = f"<think>{WORK}</think>\\boxed{{30}}"
OPENED_BY_THE_TEMPLATE = f"{WORK}</think>\\boxed{{30}}"
SYSTEM = "You are a careful tutor."
TURNS = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKED},
         {"role": "assistant", "content": THOUGHT}]
SHAREGPT = [{"from": "system", "value": SYSTEM}, {"from": "human", "value": ASKED}, {"from": "gpt", "value": THOUGHT}]

READ = {  # shape: row, gold, number of traces
    "ShareGPT with a system turn": ({"conversations": SHAREGPT, "answer": "30"}, "30", 1),
    "messages with a system turn": ({"messages": TURNS, "answer": "30"}, "30", 1),
    "content parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]},
                                    {"role": "assistant", "content": [{"type": "text", "text": THOUGHT}]}],
                       "answer": "30"}, "30", 1),
    "a thought beside its turn": ({"messages": [*TURNS[:2], {"role": "assistant", "content": "\\boxed{30}",
                                                             "reasoning_content": WORK}], "answer": "30"}, "30", 1),
    "DeepMath-103K": ({"question": ASKED, "final_answer": "30", "difficulty": 3.5,
                       "r1_solution_1": OPENED_BY_THE_TEMPLATE, "r1_solution_2": OPENED_BY_THE_TEMPLATE,
                       "r1_solution_3": OPENED_BY_THE_TEMPLATE}, "30", 3),
    "OpenThoughts-114k, metadata": ({"problem": ASKED, "deepseek_reasoning": WORK, "deepseek_solution": "\\boxed{30}",
                                     "ground_truth_solution": "So \\boxed{30}."}, "30", 1),
    "s1K-1.1": ({"question": ASKED, "solution": "30", "deepseek_thinking_trajectory": WORK,
                 "deepseek_attempt": "\\boxed{30}"}, "30", 1),
    "OpenMathReasoning": ({"problem": ASKED, "expected_answer": "30", "generated_solution": THOUGHT}, "30", 1),
    "verl, DAPO, Skywork-OR1": ({"data_source": "x", "prompt": [TURNS[1]],
                                 "reward_model": {"style": "rule", "ground_truth": "30"}}, "30", 0),
    "Skywork-OR1, a list in a string": ({"prompt": [TURNS[1]],
                                         "reward_model": {"style": "rule", "ground_truth": '["30"]'}}, "30", 0),
    "OlympiadBench": ({"question": ASKED, "final_answer": ["30"], "solution": [THOUGHT]}, "30", 1),
    "OlympiadBench, two answers": ({"question": ASKED, "final_answer": ["30", "31"], "solution": []}, "30, 31", 0),
    "a thought column": ({"question": ASKED, "thinking": WORK, "response": "\\boxed{30}", "answer": "30"}, "30", 1),
    "a list of conversations": ({"question": ASKED, "answer": "30", "generations": [TURNS, TURNS]}, "30", 2),
    "a list of objects": ({"question": ASKED, "answer": "30", "generations": [{"text": THOUGHT}]}, "30", 1),
    "a number": ({"question": ASKED, "answer": 30}, "30", 0),
}


def read(tmp_path, row, ending="jsonl", columns=rows.USUAL):
    path = tmp_path / f"set.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(row if isinstance(row, list) else [row]), path)
    else:
        write_rows(path, row if isinstance(row, list) else [row])
    return list(sources.read_problems(str(path), columns=columns))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("shape", READ)
def test_a_shape_is_read(tmp_path, shape, ending):
    row, gold, count = READ[shape]
    ((problem, traces),) = read(tmp_path, row, ending)
    assert (problem.prompt, problem.answer) == (ASKED, gold)
    assert traces == [THOUGHT] * count


def test_every_known_schema_has_a_row_here():
    for schema in rows.SCHEMAS:
        row, _, _ = READ[schema.name]
        assert next(known for known in rows.SCHEMAS if set(known.marks) <= row.keys()) == schema


CHOICES = {  # shape: row, gold, its line
    "a dictionary": ({"options": {"A": "36", "B": "30"}, "answer": "B"}, "B", "B) 30"),
    "MMLU": ({"choices": ["36", "30"], "answer": 1}, "B", "B) 30"),
    "MMLU-Pro": ({"options": ["36", "30"], "answer": "B", "answer_index": 1}, "B", "B) 30"),
    "ARC": ({"choices": {"text": ["36", "30"], "label": ["A", "B"]}, "answerKey": "B"}, "B", "B) 30"),
    "AQuA": ({"options": ["A)36", "B)30"], "correct": "B"}, "B", "B)30"),
    "the number of a choice": ({"options": [36, 30], "answer": 30}, "B", "B) 30"),
    "the text of a choice": ({"options": ["36", "30"], "answer": "30"}, "B", "B) 30"),
}


@pytest.mark.parametrize("shape", CHOICES)
def test_choices_stand_in_the_question_with_their_letters(tmp_path, shape):
    row, gold, line = CHOICES[shape]
    ((problem, _),) = read(tmp_path, {"question": ASKED, **row})
    assert problem.answer == gold and problem.prompt.splitlines()[0] == ASKED
    assert line in problem.prompt.splitlines() and len(problem.prompt.splitlines()) == 3


def test_a_choice_that_another_row_has_is_none(tmp_path):
    """Parquet gives every row the fields of all."""
    several = [{"question": ASKED, "options": {"A": "36", "B": "30", "C": None}, "answer": "B"},
               {"question": "And 6 of 6?", "options": {"A": "36", "B": "30", "C": "12"}, "answer": "A"}]
    (first, _), (second, _) = read(tmp_path, several, "parquet")
    assert "C)" not in first.prompt and "C) 12" in second.prompt


def test_a_named_column_leads_into_objects(tmp_path):
    row = {"messages": [{"role": "user", "content": ASKED, "info": {"reference_answer": "30"}}, TURNS[2]],
           "other": {"deep": "31"}}
    columns = rows.Columns(answer="messages.0.info.reference_answer", traces="messages")
    ((problem, traces),) = read(tmp_path, row, columns=columns)
    assert problem.answer == "30" and traces == [THOUGHT]
    assert read(tmp_path, row, columns=rows.Columns(answer="other.deep"))[0][0].answer == "31"


REFUSED = {
    "no gold answer": ({"messages": TURNS}, "none of the columns answer, .*so no gold answer; it has messages"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}], "answer": "30"},
                 "row 1: an object with type, url where text belongs; name its columns with --prompt-column"),
    "several questions": ({"messages": [*TURNS, *TURNS[1:]], "answer": "30"}, "none of its 1 rows has both"),
    "golds that are empty": ({"question": ASKED, "answer": []}, "none of its 1 rows has both"),
    "no question": ({"text": ASKED, "answer": "30"},
                    "none of the columns problem, question, prompt; it has text, answer: name the question's"),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_a_shape_that_cannot_be_read_is_refused_in_one_line(tmp_path, shape):
    row, words = REFUSED[shape]
    with pytest.raises(UserError, match=words) as refused:
        read(tmp_path, row)
    assert "\n" not in str(refused.value)


def test_csv_and_ndjson_are_read_as_they_are_written(tmp_path):
    (tmp_path / "set.csv").write_text(f'\ufeffquestion,answer\n"{ASKED}",007\n', encoding="utf-8")
    (tmp_path / "set.ndjson").write_text(f'{{"question": "{ASKED}", "answer": "007"}}\n')
    for ending in ("csv", "ndjson"):
        ((problem, _),) = sources.read_problems(str(tmp_path / f"set.{ending}"))
        assert (problem.prompt, problem.answer) == (ASKED, "007")


def test_a_set_without_traces_is_told_to_ask_a_teacher(tmp_path, refused):
    write_rows(tmp_path / "set.jsonl", [READ["verl, DAPO, Skywork-OR1"][0]])
    line = refused("distill", "--teacher", "traces", "--problems", tmp_path / "set.jsonl", "--out", tmp_path / "out")
    assert "no row has a trace; name their column with --trace-column, or have the questions answered" in line


# ------------------------------------------------------------------ folders


def shards_of(folder, split, count, of=None):
    for number in range(count):
        write_rows(folder / f"{split}-{number:05d}-of-{of or count:05d}.jsonl",
                   [{"problem": f"{split} {number} {folder.name}?", "answer": "1"}])


def asked(*arguments, **more):
    return [problem.prompt for problem, _ in sources.read_problems(*arguments, **more)]


def test_all_shards_of_the_wanted_split_are_read(tmp_path):
    shards_of(tmp_path / "openr1-math", "train", 3)
    shards_of(tmp_path / "openr1-math", "test", 2)
    assert asked("openr1-math", tmp_path) == [f"train {number} openr1-math?" for number in range(3)]
    assert asked(str(tmp_path / "openr1-math")) == asked("openr1-math", tmp_path)


def test_a_shard_that_is_missing_is_told(tmp_path):
    shards_of(tmp_path / "openr1-math", "train", 2, of=3)
    with pytest.raises(UserError, match="2 of 3 shards; copy the others"):
        asked("openr1-math", tmp_path)


def test_a_gated_set_can_be_left_out(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: (_ for _ in ()).throw(OSError("gated")))
    with pytest.raises(UserError, match=r"only accounts with access get it \(https://.*gpqa\): leave it out"):
        asked("gpqa-diamond")
    with pytest.raises(UserError, match=r"\(gated\); --local-copies DIR reads a copy"):
        asked("gsm8k")


def test_a_configuration_of_a_local_folder(tmp_path):
    for name in ("main", "socratic"):
        shards_of(tmp_path / "gsm8k" / name, "train", 1)
        shards_of(tmp_path / "mine" / name, "train", 1)
    assert asked("gsm8k", tmp_path) == ["train 0 main?"]
    with pytest.raises(UserError, match="mine has several configurations, main, socratic; name the one"):
        asked(str(tmp_path / "mine"))
    assert asked(str(tmp_path / "mine" / "socratic")) == ["train 0 socratic?"]


def test_a_copy_under_its_name_on_the_hub(tmp_path):
    shards_of(tmp_path / "OpenR1-Math-220k" / "default", "train", 1)
    assert asked("openr1-math", tmp_path) == ["train 0 default?"]
