"""How the arms of `mid_training` answer: counts from their answers, and the page's table from the counts."""

import sys

import pytest

from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.paths import ROOT
from phi_lab.experiments.mid_training import ARMS
from phi_lab.problems import benchmarks
from phi_lab.report import contrasts

sys.path.insert(0, str(ROOT / "scripts"))
import answer_kinds

COLUMNS, TERSE = "<think>47+38:7+8=15,4+3+1=8;85.</think>\\boxed{85}", "<think>47+38:15,8;85.</think>\\boxed{85}"


def answer(completion, verdict, sample=0, temperature=0.6):
    return {"id": "a", "sample": sample, "temperature": temperature, "completion": completion, "verdict": verdict}


def test_kinds_of_answers():
    answers = [answer(COLUMNS, "right"), answer(TERSE, "right"), answer(TERSE, "wrong"), answer("\\boxed{85}", "right"),
               answer("<think>47+38:7+8=15,", "unfinished")]
    assert answer_kinds.kinds(answers) == {
        "answers": 5, "right": 3, "thoughts": 4, "unfinished": 1, "terse": 2, "terse_right": 1}
    assert sum(answer_kinds.first_right(row, "85") for row in answers) == 4


@pytest.mark.parametrize(("completion", "right"), [
    ("<think>60+9:0+9=9,6;69.", True), ("<think>60+9:0+9=9,7;79.79-10:9,6;69.</think>\\boxed{69}", False),
    ("<think>60+9=69.", True), ("<think>60+9:0+9=69,", False), ("<think>60+9:0+9=9", False)])
def test_the_first_result_counts_whatever_follows(completion, right):
    assert answer_kinds.first_right(answer(completion, "unfinished"), "69") == right


def test_only_the_answers_of_the_accuracies_are_counted(tmp_path):
    """The fifth to eighth to a problem of `hard` are for pass@8 alone."""
    folder = tmp_path / "seed-12" / "evals"
    folder.mkdir(parents=True)
    write_rows(folder / "base-512-best.hard.jsonl", [
        answer(TERSE, "right", temperature=0.0), *(answer(COLUMNS, "right", sample) for sample in range(8))])
    (greedy, sampled) = answer_kinds.count(tmp_path)
    assert (greedy["seed"], greedy["name"], greedy["protocol"]) == (12, "base-512-best", "greedy")
    assert (greedy["answers"], greedy["terse_right"]) == (1, 1)
    assert (sampled["protocol"], sampled["answers"], sampled["terse"]) == ("sampled", 4, 0)


def test_first_results_are_counted_for_problems_of_one_operation(tmp_path):
    folder = tmp_path / "seed-12" / "evals"
    folder.mkdir(parents=True)
    one = benchmarks.load("easy")[0]
    row = {**answer(f"<think>1+1:{one['answer']};{one['answer']}.2", "unfinished"), "id": one["id"]}
    write_rows(folder / "base-512.easy.jsonl", [{**row, "temperature": 0.0}, row])
    write_rows(folder / "base-512.hard.jsonl", [{**row, "temperature": 0.0}, row])
    found = {(row["benchmark"], row["protocol"]): row for row in answer_kinds.count(tmp_path)}
    assert found["easy", "greedy"]["first_right"] == found["easy", "sampled"]["first_right"] == 1
    assert "first_right" not in found["hard", "sampled"]


def test_the_pages_table_follows_from_the_committed_counts_and_these_are_of_the_experiments_answers():
    counts = read_rows(answer_kinds.COUNTS)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert answer_kinds.table(counts).join(answer_kinds.MARKS) in page
    rows = {(row["seed"], row["name"]): row for row in contrasts.read(ROOT / "data/experiments/mid_training.jsonl")}
    assert {(row["seed"], row["name"]) for row in counts} == set(rows)
    assert len(counts) == 4 * len(rows) and {row["name"] for row in counts} == set(ARMS)
    for row in counts:
        measured = contrasts.measurement(rows[row["seed"], row["name"]], row["benchmark"], row["protocol"])
        assert measured["n"] == row["answers"]
        assert measured["correct"] == row["right"]


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["a", "b"]])
def test_the_script_wants_a_folder_with_answers(arguments):
    with pytest.raises(SystemExit, match="usage: answer_kinds.py FOLDER"):
        answer_kinds.main(arguments)
