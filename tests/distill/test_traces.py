"""Published traces and sets of problems under many names; whose tokenizer counts their tokens."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served_distillation import distil, good, reply
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from phi_lab import cli
from phi_lab.core.files import read_json, read_rows, write_rows
from phi_lab.distill import filters, shards
from phi_lab.model import chat
from phi_lab.problems import sources

LIKE = {  # a row of each set, in the columns that the set has on the hub
    "openr1-math": {"problem": "What is 3+4?", "solution": "It is 7.", "answer": "7", "source": "olympiads",
                    "generations": ["<think>3+4=7</think>\\boxed{7}", "<think>3+4=8</think>\\boxed{8}"]},
    "openthoughts": {"problem": "What is 3+4?", "deepseek_reasoning": "3+4=7", "deepseek_solution": "\\boxed{7}",
                     "ground_truth_solution": "So \\boxed{7}.", "domain": "math"},
    "bespoke-stratos": {"system": "Think.", "conversations": [
        {"from": "user", "value": "What is 3+4?"},
        {"from": "assistant", "value": "<|begin_of_thought|>3+4=7<|end_of_thought|>\n<|begin_of_solution|>\\boxed{7}"
                                       "<|end_of_solution|>"}]},
    "limo": {"question": "What is 3+4?", "solution": "3+4=7, so \\boxed{7}", "answer": "7"},
    "s1k": {"question": "What is 3+4?", "solution": "7", "deepseek_thinking_trajectory": "3+4=7",
            "deepseek_attempt": "\\boxed{7}"},
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", LIKE)
def test_published_traces_are_rollouts(tmp_path, capsys, name, ending):
    if ending == "jsonl":
        write_rows(tmp_path / f"{name}.jsonl", [LIKE[name]])
    else:
        pq.write_table(pa.Table.from_pylist([LIKE[name]]), tmp_path / f"{name}.parquet")
    command = f"distill --teacher traces --problems {name} --data {tmp_path} --out {tmp_path / 'set'} --samples 4"
    assert cli.main(command.split()) == 0
    rows = list(shards.rows(tmp_path / "set" / "rollouts"))
    assert {(row["prompt"], row["answer"]) for row in rows} == {("What is 3+4?", "7")}
    assert [row["verdict"] for row in rows] == ["right", "wrong"][: len(rows)]
    assert all(chat.THINK not in row["completion"] or "3+4" in row["completion"] for row in rows)
    assert len(read_rows(tmp_path / "set" / "right.jsonl")) == 1
    told = "1 right answers have their work in plain text and no <think> tags: kept; --require-reasoning"
    assert (told in capsys.readouterr().out) == (name == "limo")  # LIMO marks no thoughts
    assert cli.main([*command.split(), "--require-reasoning"]) == (2 if name == "limo" else 0)  # nothing is left
    assert len(read_rows(tmp_path / "set" / "right.jsonl")) == (0 if name == "limo" else 1)
    assert ("left out; --no-require-reasoning" in capsys.readouterr().out) == (name == "limo")


def test_a_set_with_a_row_a_trace_keeps_every_trace_of_a_question(tmp_path, capsys):
    """As OpenMathReasoning has it: rows of one question stand together. --questions counts questions, not rows."""

    def row(k, answer):
        return {"problem": f"What is {k}+4?", "expected_answer": str(k + 4), "problem_type": "has_answer_extracted",
                "generated_solution": f"<think>{k}+4={answer}</think>\\boxed{{{answer}}}"}

    rows = [row(1, 5), row(1, 6), row(1, 7), row(2, 6), row(3, 7), row(3, 8), row(2, 9), row(2, 8), row(5, 9)]
    write_rows(tmp_path / "many.jsonl", rows)
    command = f"distill --teacher traces --problems {tmp_path / 'many.jsonl'} --questions 3 --out {tmp_path / 'set'}"
    assert cli.main(command.split()) == 0
    kept = [(row["prompt"][8], row["sample"], row["verdict"]) for row in shards.rows(tmp_path / "set" / "rollouts")]
    assert kept == [("1", 0, "right"), ("1", 1, "wrong"), ("1", 2, "wrong"), ("2", 0, "right"), ("3", 0, "right"),
                    ("3", 1, "wrong")]
    assert "2 traces answer a question that stands further up" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "works"), [
    ("3+4=7, so \\boxed{7}", True), ("First take 3, then 4 more.\nThe answer is \\boxed{7}.", True),
    ("\\boxed{7}", False), ("The final answer is \\boxed{7}.", False), ("7", False), ("#### 7", False),
    ("<think>3+4=7", False),
])
def test_work_in_plain_text(text, works):
    assert filters.has_plain_work(text) == works


@pytest.fixture
def words_only(tmp_path):
    """Folder of a second tokenizer: a token for every word, whatever its length."""
    vocabulary = {"[UNK]": 0}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def test_traces_are_counted_by_the_tokenizer_of_the_model_that_is_to_learn(tmp_path, words_only, capsys):
    rows = [
        {
            "problem": f"What is {k} and 4?",
            "answer": "7",
            "generations": [f"<think>{'123456 ' * k}</think>\\boxed{{7}}"],
        }
        for k in (2, 3, 4, 40)
    ]
    write_rows(tmp_path / "openr1-math.jsonl", rows)

    def distilled(name, *more):
        command = f"distill --teacher traces --problems openr1-math --data {tmp_path} --longest 20".split()
        return cli.main([*command, "--out", str(tmp_path / name), *map(str, more)])

    assert distilled("small") == 2  # nothing is left
    output = capsys.readouterr().out.splitlines()
    assert output.count("100 % of the traces are longer than 20 tokens, as the small world's tokenizer counts") == 1
    assert not read_rows(tmp_path / "small" / "right.jsonl")
    assert distilled("words", "--tokenizer", words_only) == 0
    assert f"25 % of the traces are longer than 20 tokens, as {words_only} counts" in capsys.readouterr().out
    right = read_rows(tmp_path / "words" / "right.jsonl")
    assert [row["tokens"] for row in right] == [4, 5, 6]  # the words, what follows them, and the end
    assert f"Tokens are those of {words_only}." in (tmp_path / "words" / "README.md").read_text()
    assert distilled("words") == 2 and "tokenizer differs" in capsys.readouterr().err


def test_an_endpoint_s_answers_are_counted_by_it_too(tmp_path, server, words_only, capsys):
    server.behave = lambda handler, body: handler.send(200, reply("<think>123456 123456</think> so it is 5"))
    assert distil(tmp_path, server, "--tokenizer", words_only) == 0
    assert {row["tokens"] for row in shards.rows(tmp_path / "set" / "rollouts")} == {7}


def test_a_tokenizer_that_is_none_is_told_before_anything_is_asked(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, words in (("nobody/nothing", "no such folder, and no tokenizer on the hub"),
                        (tmp_path, "tokenizer.json is missing")):
        assert distil(tmp_path, server, "--tokenizer", name) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert cli.main(["distill", "--tokenizer", str(tmp_path), "--out", str(tmp_path / "set")]) == 2
    assert "it goes with --teacher endpoint or traces" in capsys.readouterr().err
    assert not server.bodies and not (tmp_path / "set").exists()


NATURAL = {
    "gsm8k": ({"question": "Q?", "answer": "First 3.\n#### 1,234"}, "1,234"),
    "math500": ({"problem": "Q?", "solution": "So \\boxed{2}.", "answer": "\\frac{1}{2}", "level": 3}, "\\frac{1}{2}"),
    "aqua-rat": ({"question": "Q?", "options": ["A)1", "B)2"], "rationale": "", "correct": "B"}, "B"),
    "aime24": ({"problem": "Q?", "answer": 204}, "204"),
}


@pytest.mark.parametrize("name", NATURAL)
def test_known_sets_have_questions_and_final_answers(tmp_path, name):
    row, gold = NATURAL[name]
    write_rows(tmp_path / name / "test.jsonl", [row, {**row, **dict.fromkeys({"answer", "correct"} & set(row))}])
    (problem, _), *rest = sources.read_problems(name, tmp_path)
    assert (problem.answer, problem.domain) == (gold, name) and problem.prompt.startswith("Q?")
    assert ("B)2" in problem.prompt) == (name == "aqua-rat") and not rest
    assert problem.level == (3 if name == "math500" else 0)


def test_a_file_of_ones_own_with_other_columns(tmp_path, capsys):
    write_rows(tmp_path / "mine.jsonl", [{"q": "What is 3+4?", "a": "7", "t": "<think>3+4=7</think>\\boxed{7}"}])
    command = [
        "distill",
        "--teacher",
        "traces",
        "--problems",
        str(tmp_path / "mine.jsonl"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.main(command) == 2
    assert "none of the columns problem, question, prompt; it has q, a, t" in capsys.readouterr().err
    columns = "--prompt-column q --answer-column a --trace-column t".split()
    assert cli.main([*command, *columns]) == 0
    assert "1 rollouts to 1 questions" in capsys.readouterr().out
    assert cli.main([*command, *columns[:-1], "no"]) == 2 and "no column 'no'" in capsys.readouterr().err


def test_benchmarks_named_are_kept_out_and_shown(tmp_path, capsys):
    words = "A train leaves the old station at nine and travels at sixty miles an hour due north, when is it there?"
    write_rows(tmp_path / "math500.jsonl", [{"problem": words, "answer": "7"}])
    write_rows(
        tmp_path / "openr1-math.jsonl", [{**LIKE["openr1-math"], "problem": f"Hello. {words}"}, LIKE["openr1-math"]]
    )
    command = f"distill --teacher traces --problems openr1-math --data {tmp_path} --out {tmp_path / 'set'}"
    assert cli.main([*command.split(), "--keep-clear-of", "math500"]) == 0
    assert "shares 'math500: a train leaves" in capsys.readouterr().out
    funnel = read_json(tmp_path / "set" / "funnel.json")
    assert funnel["steps"][0]["removed"] == 2 and len(read_rows(tmp_path / "set" / "right.jsonl")) == 1
    assert "math500: a train leaves" in (tmp_path / "set" / "README.md").read_text()


def test_what_cannot_be_found_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for number, (arguments, words) in enumerate((
        (["--problems", str(tmp_path / "none.jsonl")], "none.jsonl is missing"),
        (["--problems", "gsm8k", "--data", str(tmp_path)], "no gsm8k.jsonl, gsm8k.parquet or folder gsm8k"),
        (["--problems", "nobody/nothing"], "nobody/nothing on the hub: cannot be read"),
        (["--teacher", "oracle"], "unknown teacher 'oracle'"),
        (["--teacher", "script", "--problems", "gsm8k"], "small world only"),
    )):
        assert cli.main(["distill", "--out", str(tmp_path / str(number)), *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error


def test_a_served_model_s_rollouts_and_the_model_s_own_do_not_mix(tmp_path, server, capsys):
    server.behave = good
    assert distil(tmp_path, server) == 0
    assert distil(tmp_path, server, "--teacher-model", "other") == 2
    assert "teacher differs" in capsys.readouterr().err
