"""What a notebook says of an experiment follows from its committed rows."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import write_rows
from phi_lab.experiments import EXPERIMENTS, verdicts
from phi_lab.lab import paper_questions
from phi_lab.report.html import text

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
from experiment_rows import nested_rows, rows_of


def write(root, name, rows):
    path = root / verdicts.RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True)
    write_rows(path, rows)


def test_an_experiment_with_contrasts(tmp_path):
    """own-matched lies 10 points above all others: so it is said, in the sentence, the table and the figure's text."""
    experiment = EXPERIMENTS["one_batch"]
    write(tmp_path, "one_batch", rows_of(
        experiment, lambda arm, seed: 0.6 + (0.1 + 0.001 * (-1) ** seed) * (arm == "own-matched"), range(12)))
    page = paper_questions.found("one_batch", tmp_path)
    first = experiment.contrasts[0]
    assert (first.name, first.against) == ("own-matched", "teacher-pairs") and text(first.question) in page
    assert "own-matched above teacher-pairs on hard: supported, +10" in page and "12 seeds" in page
    assert page.count("<tr>") == 2 + len(experiment.contrasts) + len(experiment.arms)
    assert "<img" in page and "own-matched 70" in page


def test_a_nested_one_has_its_levels_in_the_figure_and_folded_tables(tmp_path):
    write(tmp_path, "variance", nested_rows(EXPERIMENTS["variance"], range(12), sds=(0.05, 0.0)))
    page = paper_questions.found("variance", tmp_path)
    assert "supported, chains add a standard deviation of" in page and "Components of variance" in page
    assert page.count("<details open>") == 1 and page.count("<details>") == 9
    assert "Seeds of each recipe" in page and "re-run of this model over its first value" in page


def test_one_that_has_not_run_says_so_with_its_command(tmp_path):
    page = paper_questions.found("rl_devices", tmp_path)
    assert "It has not run yet: <code>phi-lab experiment rl_devices" in page and "<img" not in page
    with pytest.raises(UserError, match="unknown experiment 'sft': choose one of mid_training"):
        paper_questions.found("sft", tmp_path)


def test_cells_are_filled_again_when_rows_come(tmp_path):
    """Executed cells that show an experiment and nothing else; all others stay."""
    cell, (folder, page) = nbformat.v4.new_code_cell, (tmp_path / "notebooks", tmp_path / "notebooks" / "a.ipynb")
    cells = [cell('lab.question("one_batch")', execution_count=1), cell("lab.questions()", execution_count=2),
             cell('lab.question("one_batch")'), cell('x = lab.question("one_batch")', execution_count=3)]
    for one in cells:
        one.outputs = [nbformat.v4.new_output("stream", text="old")]
    folder.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), page)
    write(tmp_path, "one_batch", rows_of(EXPERIMENTS["one_batch"], lambda arm, seed: 0.6 + 0.01 * seed, range(3)))
    paper_questions.refresh(folder, tmp_path)
    one, every, *others = nbformat.read(page, 4).cells
    assert one.outputs[0].data["text/html"] == paper_questions.found("one_batch", tmp_path)
    assert one.outputs[0].execution_count == 1 and "no difference shown" in one.outputs[0].data["text/html"]
    assert every.outputs[0].data["text/html"].count("has not run") == len(EXPERIMENTS) - 1
    assert [other.outputs[0].text for other in others] == ["old", "old"]


def test_the_committed_pages_show_what_follows_from_the_committed_rows():
    """Pictures aside, which another version of matplotlib may draw in other bytes."""

    def words(page):
        return re.sub(r'src="[^"]*"', "", page)

    shown = {}
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        for one in nbformat.read(path, 4).cells:
            match = paper_questions.CELL.fullmatch(one.source.strip()) if one.cell_type == "code" else None
            if match:
                page = paper_questions.page_of(match)
                assert words(one.outputs[0].data["text/html"]) == words(page), path
                shown[match["name"] or match["numbers"]] = path.stem[:2]
    assert shown == {"mid_training": "03", "one_batch": "04", "rl_devices": "05", "variance": "06",
                     "2, 6, 500, 4": "06", None: "08"}
