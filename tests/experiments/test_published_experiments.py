"""What is published of an experiment follows from its committed rows, and nothing else on a page changes.

python -m pytest tests/experiments/test_published_experiments.py
"""

import re

import nbformat
import pytest
from experiment_rows import nested_rows, rows_of

from phi_lab import cli
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_json, write_rows
from phi_lab.core.paths import ROOT
from phi_lab.experiments import EXPERIMENTS, publish, runner, verdicts
from phi_lab.lab import paper_questions

ONE_BATCH = EXPERIMENTS["one_batch"]


def shares(arm, seed):
    return {"own-matched": 0.54, "teacher-pairs": 0.5}.get(arm, 0.4) + 0.01 * (arm == "own-matched") * (seed % 2)


def made(tmp_path, rows, name, profile="lab"):
    """A folder of a finished experiment, and a root with the pages that show it."""
    out, root = tmp_path / "out", tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    for page, parts in ((root / "README.md", [publish.QUESTIONS]),
                        (root / "docs" / "results.md", map(publish.marks, EXPERIMENTS.values()))):
        page.write_text("above\n" + "".join(f"{start}OLD{end}\nbelow\n" for start, end in parts))
    write_rows(out / f"{name}.jsonl", rows)
    write_json(out / "config.json", {"experiment": name, "config": {"profile": profile}})
    return out, root


def test_rows_figure_section_and_verdict(tmp_path, monkeypatch, capsys):
    rows = rows_of(ONE_BATCH, shares, ONE_BATCH.seeds[:4])
    out, root = made(tmp_path, rows, "one_batch")
    monkeypatch.setattr(publish.publish, "__defaults__", (root, print))
    monkeypatch.setattr(paper_questions.refresh, "__defaults__", (root / "notebooks", root))
    (root / "notebooks").mkdir()
    page = root / "notebooks" / "04.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell('lab.question("one_batch")', execution_count=1)]), page)
    assert cli.main(["experiment", "publish", "--out", str(out)]) == 0
    assert "teacher-pairs on hard: supported, +4.5 points" in capsys.readouterr().out
    assert read_rows(root / "data" / "experiments" / "one_batch.jsonl") == rows
    assert "supported, +4.5 points" in nbformat.read(page, 4).cells[0].outputs[0].data["text/html"]
    results, readme = ((root / name).read_text() for name in ("docs/results.md", "README.md"))
    assert results.count("OLD") == 4 and results.count("below") == 5  # the other experiments' parts are as they were
    assert "First claim: own-matched above teacher-pairs on hard: supported, +4.5 points" in results
    assert "![What is one batch" in results
    assert "4 of 12 planned seeds so far" in results and "until then no verdict is final" in results
    assert (root / "docs" / "one_batch.svg").read_text().count("<svg") == 1 and "(one_batch.svg)" in results
    for arm in ONE_BATCH.arms:
        assert f"| `{arm}` | {ONE_BATCH.arms[arm]} |" in results
    assert "above\n" in readme and "OLD" not in readme and readme.count("has not run; planned: ") == 4
    assert ("the student's right over its wrong, as many as the teacher's (own-matched) above the paper's: teacher's "
            "right over teacher's wrong (teacher-pairs) on hard | supported, +4.5 points") in readme
    (title,) = re.findall(r"^### (What is one batch.*)$", results, re.MULTILINE)
    anchor = "what-is-one-batch-of-sampled-and-verified-answers-best-used-for-at-equal-compute"  # as GitHub makes it
    assert f"[{title}](docs/results.md#{anchor})" in readme


def test_a_nested_experiment_is_shown_too(tmp_path):
    experiment = EXPERIMENTS["variance"]
    out, root = made(tmp_path, nested_rows(experiment, experiment.seeds[:4]), "variance")
    publish.publish(out, root, lambda line: None)
    results = (root / "docs" / "results.md").read_text()
    assert "chains add a standard deviation of" in results and "(variance.svg)" in results


@pytest.mark.parametrize(("kind", "says"), [
    ("one seed", "1 seeds with all arms: two are needed"), ("smoke", "only the profile lab is published"),
    ("no marks", "the lines .*experiment one_batch.* are missing"), ("no questions", "the lines .*questions"),
    ("other seeds", "seeds 9 are not of the plan: one_batch has 10-21"),
    ("one chain", "stage seeds on one chain; in the plan a seed is a whole chain: run it with --chains")])
def test_what_cannot_be_published_changes_nothing(tmp_path, kind, says):
    first = 9 if kind == "other seeds" else 10
    rows = rows_of(ONE_BATCH, shares, range(first, first + (1 if kind == "one seed" else 3)))
    if kind == "one chain":
        rows[-1]["unit"] = runner.unit(ONE_BATCH, None)
    out, root = made(tmp_path, rows, "one_batch", "smoke" if kind == "smoke" else "lab")
    if kind.startswith("no "):
        (root / ("README.md" if kind == "no questions" else "docs/results.md")).write_text("nothing\n")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=says):
        publish.publish(out, root, print)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda one: one.name)
def test_the_pages_say_what_follows_from_the_committed_rows(experiment):
    page = (ROOT / "docs" / "results.md").read_text()
    assert publish.section(experiment).join(publish.marks(experiment)) in page
    assert (ROOT / "docs" / f"{experiment.name}.svg").exists() == (verdicts.row(experiment)["verdict"] is not None)


def test_readme_answers_the_questions_by_the_committed_rows():
    assert publish.questions().join(publish.QUESTIONS) in (ROOT / "README.md").read_text()
