"""The notebooks: made from their sources, short cells, clean outputs, every part there. nbmake executes them."""

import ast
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.run_folder import RunFolder
from phi_lab.lab import checks
from phi_lab.pipeline import notebooks

NAMES = (
    "00_welcome", "01_distillation", "02_mid_training", "03_sft", "04_rollout_dpo", "05_grpo", "06_report_card",
    "07_scaling_up", "08_open_questions",
)
STAGE = {"02_mid_training": "mid", "03_sft": "sft", "04_rollout_dpo": "dpo", "05_grpo": "grpo"}
MACHINE = re.compile(r"/home/|/root/|/tmp/|/Users/|/work/|[A-Z]:\\\\Users|site-packages")


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def page(name):
    return nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", 4)


def test_there_are_nine_in_order():
    assert tuple(sorted(path.stem for path in notebooks.SOURCES.glob("*.py"))) == NAMES
    assert tuple(sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))) == NAMES


def test_source_and_notebook_agree(name, page):
    fresh = notebooks.build(notebooks.SOURCES / f"{name}.py")
    assert [(c.cell_type, c.source) for c in page.cells] == [(c.cell_type, c.source) for c in fresh.cells], (
        "run `make notebooks`"
    )
    page.metadata.pop("phi_lab", None)  # what made the outputs
    assert page.metadata == fresh.metadata and [c.id for c in page.cells] == [c.id for c in fresh.cells]
    nbformat.validate(page)


def test_one_scale_for_all_notebooks(name):
    """Notebook 00 has the dial, the others follow it."""
    code = "\n".join(notebooks.code(notebooks.build(notebooks.SOURCES / f"{name}.py")))
    opened = "lab = Lab(SCALE)" if name == "00_welcome" else "lab = Lab()"
    assert opened in code and ("\nSCALE = " in code) == (name == "00_welcome")


def test_code_cells_are_short(page):
    for text in notebooks.code(page):
        assert len(text.splitlines()) <= 30, text
        long = [line for line in text.splitlines() if len(line) > 88]
        assert not long, f"a window of 800 pixels shows 88 characters of a line: {long}"
        ast.parse(text)


def test_outputs_are_clean(page):
    assert "widgets" not in page.metadata
    for cell in page.cells:
        assert set(cell.metadata) <= {"phi_lab", "tags"}, "an exercise's id and tag, and nothing of one machine"
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            assert not any("widget" in kind for kind in output.get("data", {}))
            said = output.get("text", "") + "".join(
                str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")
            )
            assert not MACHINE.search(said), MACHINE.search(said)


def test_every_part_is_there(name, page):
    text, code = prose(page), "\n".join(notebooks.code(page))
    assert page.cells[0].source.startswith("# ")
    for once in ("**Claim.**", "**Before**:", "**Afterwards** you can ", "<details><summary>Answers</summary>"):
        assert text.count(once) == 1, once
    assert notebooks.TIME.search(page.cells[0].source)
    vary, remember = text.index("## Vary this next"), text.index("## What to remember")
    questions, answers = text.index("## Three questions"), text.index("<details><summary>Answers</summary>")
    assert vary < remember < questions < answers and 2 <= text[vary:remember].count("Expect") <= 4
    assert re.findall(r"(?m)^(\d)\. ", text[questions:]) == ["1", "2", "3"]
    assert re.findall(r"(?m)^\*\*(\d)\.\*\* ", text[answers:]) == ["1", "2", "3"]
    assert text.count("<details>") == text.count("</details>")
    assert re.search(r"(Next|Back).*\.ipynb\)", text[text.rindex("</details>") :])
    assert "before_after(" in code or "side_by_side(" in code, "the ten problems before and after"
    assert "return NotImplemented" in code and "checks." in code
    if name in STAGE:
        assert f'lab.stage("{STAGE[name]}"' in code and "lab.measure(" in code and "lab.ladder(" in code
        loop, stage = code.index("optimizer.step()"), code.index(f'lab.stage("{STAGE[name]}"')
        assert loop < code.index("of the fast path" if "of the fast path" in code else "of TRL") < stage, (
            "the loop is on the page, then beside the fast path, and then the stage is the same, longer"
        )
        assert stage < code.index(f'lab.doctor("{STAGE[name]}")')
    for target in re.findall(r"\]\((\d\d_\w+)\.ipynb\)", text):
        assert target in NAMES


def test_every_check_is_used_somewhere():
    pages = [notebooks.build(notebooks.SOURCES / f"{name}.py") for name in NAMES]
    code = "\n".join(text for page in pages for text in notebooks.code(page))
    constants = {key: value for key, value in vars(checks).items() if isinstance(value, checks.Check)}
    used = re.findall(r"checks\.([A-Z_]+)\.use", code)
    assert sorted(used) == sorted(constants), "each on one page"


def test_an_exercise_is_a_heading_a_card_a_stub_and_a_check_on_its_page(name):
    cells = notebooks.build(notebooks.SOURCES / f"{name}.py").cells
    found = [(place, called[1]) for place, cell in enumerate(cells)
             if (called := re.search(r"checks\.([A-Z_]+)\.use", cell.source))]
    assert found
    for place, key in found:
        heading, card, stub = cells[place - 3 : place]
        assert heading.cell_type == "markdown" and re.search(r"(?m)^## Exercise: ", heading.source), key
        assert card.source == f"checks.{key}.card()" and stub.metadata["tags"] == ["exercise"]
        assert f"{getattr(checks, key).exercise.stub.rstrip()}" == stub.source
        assert getattr(checks, key).exercise.notebook == name[:2]


def test_no_page_tells_an_exercise_s_code_before_it():
    """Not a line of the reference, but for its signature and docstring, stands above the stub."""
    for name in NAMES:
        above = ""
        for cell in notebooks.build(notebooks.SOURCES / f"{name}.py").cells:
            if called := re.search(r"checks\.([A-Z_]+)\.use", cell.source):
                (function,) = ast.parse(getattr(checks, called[1]).reference_source()).body
                for line in "\n".join(map(ast.unparse, function.body[1:])).splitlines():
                    told = line.strip().removeprefix("return ")
                    assert len(told) < 16 or told.startswith("import ") or told not in above, (called[1], told)
            above += cell.source + "\n"


def test_the_paper_s_figures_carry_their_marks():
    for name in NAMES:
        for line in prose(notebooks.build(notebooks.SOURCES / f"{name}.py")).split("\n\n"):
            if re.search(r"\b(AIME|GPQA|MATH-500)\b.*\d\d\.\d", line.replace("\n", " ")):
                assert re.search(r"\[(V|P|S|S2|M|I|U)\]", line), f"{name}: {line}"


# ------------------------------------------------------------------ making them

SOURCE = """# %% [markdown]
# # Title
#
# **Time**: about 5 seconds in the `lab` profile, 5 in `smoke`, on two CPU cores.

# %%
import os
import sys

print(os.environ["PHI_LAB_PROFILE"], os.path.basename(os.environ["PHI_LAB_RUN"]))
print("noise", file=sys.stderr)

# %%
1 + 1
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A course of one tiny notebook."""
    folder = tmp_path / "notebooks"
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "00_tiny.py").write_text(SOURCE)
    monkeypatch.setattr(paths, "NOTEBOOKS", folder)
    monkeypatch.setattr(notebooks, "SOURCES", folder / "source")
    monkeypatch.setattr(notebooks.report, "write_report", lambda out: out / "report.html")
    return folder


def convert(folder, outputs_from=None):
    notebooks.convert(outputs_from and RunFolder(outputs_from), folder / "source", folder)
    return nbformat.read(folder / "00_tiny.ipynb", 4)


@pytest.mark.slow
def test_a_course_runs_once_and_its_outputs_come_back_clean(small, tmp_path, capsys):
    out = tmp_path / "run"
    notebooks.run_course(RunFolder(out), "smoke")
    assert "[1/1] 00_tiny: about" in capsys.readouterr().out
    notebooks.run_course(RunFolder(out), "smoke")
    assert "done before" in capsys.readouterr().out
    page = convert(small, out)
    first, second = [cell for cell in page.cells if cell.cell_type == "code"]
    assert [output.text for output in first.outputs] == ["smoke run\n"]
    assert second.outputs[0].data["text/plain"] == "2" and second.execution_count == 2

    changed = SOURCE.replace("# # Title", "# # Another title")
    (small / "source" / "00_tiny.py").write_text(changed)
    assert convert(small).cells[-1].outputs, "outputs stay when only prose changes"
    (small / "source" / "00_tiny.py").write_text(changed.replace("1 + 1", "1 + 2"))
    assert not convert(small).cells[-1].outputs
    with pytest.raises(UserError, match="other code"):
        convert(small, out)


@pytest.mark.slow
def test_a_failing_notebook_is_one_clear_line_and_a_page(small, tmp_path):
    (small / "source" / "00_tiny.py").write_text(SOURCE.replace("1 + 1", "1 / 0"))
    with pytest.raises(UserError, match="00_tiny stopped at ZeroDivisionError"):
        notebooks.run_course(RunFolder(tmp_path / "run"), "smoke")
    assert (tmp_path / "run" / "notebooks" / "00_tiny.failed.ipynb").exists()
    assert not (tmp_path / "run" / "notebooks" / "00_tiny.ipynb").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for another process")
def test_ctrl_c_is_one_clear_line(small, tmp_path):
    (small / "source" / "00_tiny.py").write_text(SOURCE.replace("1 + 1", "import time\n\ntime.sleep(60)"))
    program = (
        "import pathlib, sys; from phi_lab import cli; from phi_lab.pipeline import notebooks as course;"
        "folder = pathlib.Path(sys.argv[1]);"
        "course.paths.NOTEBOOKS, course.SOURCES = folder, folder / 'source';"
        "sys.exit(cli.main(['course', '--profile', 'smoke', '--out', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", program, str(small), str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    course_run = subprocess.Popen(command, cwd=paths.ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **pipes)
    course_run.stdout.readline()  # it says which notebook it starts
    time.sleep(8)
    course_run.send_signal(signal.SIGINT)
    _, said = course_run.communicate(timeout=60)
    assert course_run.returncode == 2 and "Traceback" not in said
    assert "the same command" in said


def test_conversion_is_the_same_every_time(small):
    convert(small)
    first = (small / "00_tiny.ipynb").read_bytes()
    convert(small)
    assert (small / "00_tiny.ipynb").read_bytes() == first


def test_clean_drops_what_belongs_to_one_machine():
    def stream(name, text):
        return nbformat.v4.new_output("stream", name=name, text=text)

    widget = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"})
    shown = nbformat.v4.new_output("display_data", {"text/html": "see /a/b/c/x.html", "image/png": "/a/b/c/"})
    every = [stream("stdout", "1\n"), stream("stderr", "bar"), widget, stream("stdout", "/a/b/c/d\n"), shown]
    kept = notebooks.clean(every, ["/a/b/c"])
    assert [output.output_type for output in kept] == ["stream", "display_data"]
    assert kept[0].text == "1\nd\n"
    assert kept[1].data == {"text/html": "see x.html", "image/png": "/a/b/c/"}


def test_no_committed_page_has_lost_what_a_cell_shows(page):
    """An output that is only the name of a Python object shows a reader nothing."""
    for number, cell in enumerate(page.cells):
        for output in cell.get("outputs", []):
            said = output.get("data", {"text/html": ""})
            assert set(said) != {"text/plain"} or " object" not in said["text/plain"], number


def test_clean_drops_a_picture_that_is_there_twice_and_no_other():
    """A figure comes as an image and as HTML for live pages; a picture with a table beside it comes as HTML alone."""
    html, twice = '<img alt="a" src="data:"><table></table>', {"image/png": "abc", "text/plain": "Figure"}
    figure, page = (nbformat.v4.new_output("display_data", {"text/html": html, **data}) for data in (twice, {}))
    kept = notebooks.clean([figure, page], [])
    assert [output.data for output in kept] == [twice, {"text/html": html}]


def test_clean_drops_bars_of_text():
    chunks = ("before\nx:  10%", "\rx:  50%\r      \r", "after\n")
    bar = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in chunks]
    (kept,) = notebooks.clean(bar, [])
    assert kept.text == "before\nafter\n"
    assert notebooks.clean(bar[1:2], []) == []
