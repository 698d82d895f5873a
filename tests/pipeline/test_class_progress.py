"""A class: learners' copies of the notebooks are never written over, and `phi-lab progress` reads what they saved."""

import csv
import io
import json
import shutil

import nbformat
import pytest

from phi_lab import cli
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.lab import checks, grading
from phi_lab.pipeline import class_progress, notebooks, working_copies
from phi_lab.pipeline.exercise_cells import CHECK, mark_exercises, part_of, read_notebook, states

STUB = "def pack(lengths, row_length):\n    return NotImplemented"
CALL = "packer = checks.PACK.use(pack)"


def said(check, attempt, monkeypatch):
    """The output that a check leaves in a saved notebook."""
    shown = []
    monkeypatch.setattr(grading, "display", lambda html: shown.append(html.data))
    check.use(attempt)
    return nbformat.v4.new_output("display_data", {"text/html": shown[0], "text/plain": "HTML"})


def page(path, outputs=(), stub=STUB, call=CALL, note="A page."):
    """A notebook with one exercise, saved as Jupyter does."""
    cells = [nbformat.v4.new_markdown_cell(note), nbformat.v4.new_code_cell(stub),
             nbformat.v4.new_code_cell(call, outputs=list(outputs))]
    notebook = nbformat.v4.new_notebook(cells=cells)
    mark_exercises(notebook.cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def course(tmp_path):
    """originals: two pages with an exercise each."""
    page(tmp_path / "course" / "02_mid.ipynb")
    page(tmp_path / "course" / "04_dpo.ipynb", stub="def pair(right):\n    return NotImplemented",
         call="paired = checks.PAIR.use(pair)")
    return tmp_path / "course"


# ------------------------------------------------------------------ exercises in cells


@pytest.mark.parametrize("source", sorted(notebooks.SOURCES.glob("*.py")), ids=lambda path: path.stem)
def test_each_check_of_a_page_is_marked_with_its_stub(source):
    built = notebooks.build(source)
    marked = [part_of(cell) for cell in built.cells if part_of(cell)]
    called = [found[1].lower() for cell in built.cells if (found := CHECK.search(cell.source))]
    assert marked == [(name, part) for name in called for part in ("stub", "check")]
    assert all(getattr(checks, name.upper()) in checks.ALL for name in called)
    stubs = [cell for cell in built.cells if (part_of(cell) or "")[1:] == ("stub",)]
    assert all(cell.metadata.tags == ["exercise"] for cell in stubs)


@pytest.mark.parametrize(("attempt", "state"), [
    (lambda lengths, row_length: NotImplemented, "not attempted"),
    (lambda lengths, row_length: [[i] for i in range(len(lengths))], "wrong"),
    (lambda lengths, row_length: checks.PACK.reference(lengths, row_length), "right"),
])
def test_what_a_check_says_is_what_is_read(tmp_path, monkeypatch, attempt, state):
    page(tmp_path / "a.ipynb", [said(checks.PACK, attempt, monkeypatch)])
    assert states(read_notebook(tmp_path / "a.ipynb")["cells"]) == {"pack": state}


def test_an_exercise_is_found_whatever_is_written_into_its_cell(tmp_path):
    page(tmp_path / "a.ipynb")
    notebook = nbformat.read(tmp_path / "a.ipynb", 4)
    notebook.cells[2].source = "# I renamed everything\nmine(1)"
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert states(read_notebook(tmp_path / "a.ipynb")["cells"]) == {"pack": "not run"}


# ------------------------------------------------------------------ progress


def test_a_table_of_a_class(course, tmp_path, monkeypatch):
    right = said(checks.PACK, lambda *given: checks.PACK.reference(*given), monkeypatch)
    wrong = said(checks.PACK, lambda lengths, row_length: [], monkeypatch)
    page(tmp_path / "class" / "ann" / "02_mid.ipynb", [right])
    page(tmp_path / "class" / "ann" / "02_mid-Copy1.ipynb", [wrong])
    page(tmp_path / "class" / "ben" / "work" / "02.ipynb", [wrong])
    page(tmp_path / "class" / "ben" / ".ipynb_checkpoints" / "02.ipynb", [right])
    page(tmp_path / "class" / "=cmd()" / "02.ipynb")
    (tmp_path / "class" / "dan").mkdir()
    (tmp_path / "class" / "dan" / "02.ipynb").write_text('{"cells": [')
    progress = class_progress.read_class([tmp_path / "class"], course)
    assert progress.exercises == [("02_mid", "pack"), ("04_dpo", "pair")]
    assert {name: progress.state(name, "pack") for name in progress.learners} == {
        "ann": "right", "ben/work": "wrong", "=cmd()": "not run", "dan": "no page"}
    assert progress.passed("ann") == 1 and progress.state("ann", "pair") == "no page"
    assert len(progress.damaged) == 1 and "dan/02.ipynb is not JSON" in progress.damaged[0]
    rows = list(csv.DictReader(io.StringIO(class_progress.as_csv(progress))))
    assert {row["learner"]: row["02 pack"] for row in rows}["'=cmd()"] == "not run"
    row = {"learner": "ann", "page": "02_mid", "exercise": "pack", "state": "right"}
    assert row in class_progress.as_rows(progress)
    assert "ann        1/2 ✓" in class_progress.as_text(progress)


def test_a_page_for_the_teacher_escapes_names(course, tmp_path):
    page(tmp_path / "class" / "<b>ann" / "02.ipynb")
    html = class_progress.as_html(class_progress.read_class([tmp_path / "class"], course))
    assert "&lt;b&gt;ann" in html and "<b>ann" not in html


def test_two_folders_of_one_name_are_two_learners(course, tmp_path):
    page(tmp_path / "one" / "notebooks" / "02.ipynb")
    page(tmp_path / "two" / "notebooks" / "02.ipynb")
    folders = [tmp_path / "one" / "notebooks", tmp_path / "two" / "notebooks"]
    assert list(class_progress.read_class(folders, course).learners) == ["notebooks", folders[1].as_posix()]


@pytest.mark.parametrize("content", ["", "[]", '{"cells": 3}', '{"cells": [4]}', '{"cells": [{"source": [1]}]}',
                                     '{"worksheets": []}', '{"cells": [{"source": "", "outputs": 1}]}', "\xff"])
def test_a_damaged_notebook_is_one_line(course, tmp_path, content):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "02.ipynb").write_bytes(content.encode("latin-1"))
    progress = class_progress.read_class([tmp_path / "ann"], course)
    assert len(progress.damaged) == 1 and "\n" not in progress.damaged[0] and "02.ipynb" in progress.damaged[0]


@pytest.mark.parametrize("outputs", [[3], [{"data": 4}], [{"data": {"text/html": 5}}], [{"data": {"text/html": [6]}}]])
def test_strange_outputs_are_no_verdict(outputs):
    assert states([{"cell_type": "code", "source": CALL, "outputs": outputs}]) == {"pack": "not run"}


def test_progress_as_a_command(tmp_path, capsys, refused):
    page(tmp_path / "ann" / "02.ipynb")
    assert cli.main(["progress", str(tmp_path), "--json", "--csv", str(tmp_path / "a.csv")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"learner": "ann", "page": "02_mid_training", "exercise": "pack", "state": "not run"} in rows
    assert (tmp_path / "a.csv").read_text().startswith("learner,right,of,")
    assert "nowhere: no such folder" in refused("progress", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no notebook" in refused("progress", tmp_path / "empty")


# ------------------------------------------------------------------ working copies


@pytest.fixture
def mine(course, tmp_path):
    working_copies.make_copies(tmp_path / "mine", course, lambda line: None)
    return tmp_path / "mine"


def copy_again(course, mine):
    lines = []
    working_copies.make_copies(mine, course, lines.append)
    return "\n".join(lines)


def edit(path, text):
    notebook = nbformat.read(path, 4)
    notebook.cells[1].source = text
    nbformat.write(notebook, path)


def test_an_untouched_copy_follows_the_course(course, mine):
    notebook = nbformat.read(mine / "02_mid.ipynb", 4)  # opened and saved by Jupyter, and nothing else
    notebook.metadata.language_info = {"name": "python", "version": "3.11"}
    nbformat.write(notebook, mine / "02_mid.ipynb")
    page(course / "02_mid.ipynb", note="A better page.")
    assert "yours is kept" not in copy_again(course, mine)
    assert nbformat.read(mine / "02_mid.ipynb", 4).cells[0].source == "A better page."


@pytest.mark.parametrize("what", ["source", "outputs", "damage", "forgotten"])
def test_work_is_never_written_over(course, mine, what):
    target = mine / "02_mid.ipynb"
    if what == "source":
        edit(target, "def pack(lengths, row_length):\n    return mine")
    elif what == "outputs":
        page(target, [nbformat.v4.new_output("stream", text="mine")])
    elif what == "damage":
        target.write_text("{ my work")
    else:
        (mine / working_copies.MADE_FROM).unlink()
    before = target.read_bytes()
    assert copy_again(course, mine) == f"your copies of the notebooks: {mine}" or what == "forgotten"
    page(course / "02_mid.ipynb", note="A better page.")
    assert "yours is kept" in copy_again(course, mine) and target.read_bytes() == before


def test_one_exercise_is_reset_and_the_rest_stays(course, mine):
    edit(mine / "02_mid.ipynb", "broken")
    notebook = nbformat.read(mine / "02_mid.ipynb", 4)
    notebook.cells[0].source = "My note."
    nbformat.write(notebook, mine / "02_mid.ipynb")
    kept = working_copies.reset("02", "pack", mine, course)
    assert nbformat.read(kept, 4).cells[1].source == "broken"
    now = nbformat.read(mine / "02_mid.ipynb", 4)
    assert [cell.source for cell in now.cells] == ["My note.", STUB, CALL]
    nbformat.validate(now)
    assert working_copies.reset("02_mid.ipynb", "pack", mine, course).name == "02_mid-2.ipynb"


def test_a_page_is_reset(course, mine):
    (mine / "02_mid.ipynb").write_text("{ my work")
    kept = working_copies.reset("02", None, mine, course)
    assert kept.read_text() == "{ my work"
    assert nbformat.read(mine / "02_mid.ipynb", 4).cells[1].source == STUB
    page(course / "02_mid.ipynb", note="A better page.")
    assert "yours is kept" not in copy_again(course, mine), "after a reset the copy follows the course again"


@pytest.mark.parametrize(("name", "exercise", "line"), [
    ("12", None, "no notebook '12': choose one of 02_mid, 04_dpo"), ("02", "pak", "no exercise 'pak'; it has pack"),
    ("04", None, "04_dpo.ipynb is missing"), ("02", "pack", "the stub of pack is not in it any more"),
])
def test_what_cannot_be_reset(course, mine, name, exercise, line):
    (mine / "04_dpo.ipynb").unlink()
    notebook = nbformat.read(mine / "02_mid.ipynb", 4)
    del notebook.cells[1]
    nbformat.write(notebook, mine / "02_mid.ipynb")
    with pytest.raises(UserError, match=line.replace("'", ".")):
        working_copies.reset(name, exercise, mine, course)
    assert not (mine / "before-reset").exists()


def test_the_course_s_own_pages_can_be_copied_and_read(tmp_path):
    folder = shutil.copytree(paths.NOTEBOOKS, tmp_path / "course", ignore=shutil.ignore_patterns("source"))
    working_copies.make_copies(tmp_path / "mine", folder, lambda line: None)
    progress = class_progress.read_class([tmp_path / "mine"], folder)
    assert {progress.state("mine", name) for _, name in progress.exercises} == {"not run"}
    for path in (tmp_path / "mine").glob("*.ipynb"):
        nbformat.validate(nbformat.read(path, 4))
