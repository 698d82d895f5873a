"""Sets whose rows need more than a look for columns. The other sets: tests/distill/test_traces.py."""

from phi_lab.core.files import write_rows
from phi_lab.problems import sources


def test_gpqa_becomes_letters_in_an_order_of_its_own(tmp_path):
    """Four choices, the right one under its letter; the same order every time, another for another question."""
    rows = [{"Question": f"Which {n}?", "Correct Answer": "this", "Incorrect Answer 1": "x", "Incorrect Answer 2": "y",
             "Incorrect Answer 3": "z"} for n in range(12)]
    write_rows(tmp_path / "gpqa-diamond.jsonl", rows)
    first, again = ([problem for problem, _ in sources.read_problems("gpqa-diamond", tmp_path)] for _ in range(2))
    assert [problem.prompt for problem in first] == [problem.prompt for problem in again]
    for problem in first:
        question, *choices = problem.prompt.split("\n")
        assert question.startswith("Which") and sorted(choice[3:] for choice in choices) == ["this", "x", "y", "z"]
        assert f"{problem.answer}) this" in choices
    assert len({problem.answer for problem in first}) > 1
