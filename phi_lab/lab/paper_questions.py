"""What the experiments on the paper's questions found, for notebooks: their rows as a sentence, a figure and a table.

Cells that show nothing else are filled again when an experiment is published (`refresh`), so a page need not be
executed for it: their outputs follow from the rows alone.
"""

import re
from pathlib import Path

import nbformat

from phi_lab.core.errors import UserError
from phi_lab.core.paths import NOTEBOOKS, ROOT
from phi_lab.experiments import EXPERIMENTS, publish, verdicts
from phi_lab.lab import difference_worth, tables
from phi_lab.report import contrasts, figures_experiments, nested
from phi_lab.report.html import text

CELL = re.compile(r'lab\.question\("(?P<name>\w+)"\)|lab\.questions\(\)|lab\.worth\((?P<numbers>[\d., ]+)\)')


def found(name: str, root: Path = ROOT) -> str:
    """The question, its verdict, figure, and the claims with what each would have shown, as HTML; where the experiment
    has not run, the question and the command.

    Raises UserError for an unknown experiment and for a damaged file of results.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"unknown experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    experiment, answer = EXPERIMENTS[name], verdicts.row(EXPERIMENTS[name], root)
    top = f"<p><b>{text(experiment.question)}</b></p>"
    if answer["verdict"] is None:
        return f"{top}<p>It has not run yet: <code>{text(publish.command(experiment))}</code></p>"
    rows = contrasts.read(root / verdicts.RESULTS / f"{name}.jsonl")
    figure = figures_experiments.FIGURES[name](rows, experiment.arms, experiment.claims)
    said = text(verdicts.answer(answer))
    return f"{top}<p>First claim: {said}.</p>{figure._repr_html_()}{_claims(name, rows)}"


def all_found(root: Path = ROOT) -> str:
    """Every experiment's question, with what was found, as an HTML table."""
    lines = [(one["question"], verdicts.claim(EXPERIMENTS[one["name"]]), verdicts.result(one))
             for one in verdicts.listing(root)]
    return tables.table("", ("question", "its first claim", "verdict"), lines)


def page_of(cell: re.Match, root: Path = ROOT) -> str:
    """What a cell that `CELL` matches shows, as HTML."""
    if cell["numbers"]:
        points, *counts = cell["numbers"].split(",")
        return difference_worth.shown(difference_worth.measured(root), float(points), *map(int, counts))
    return found(cell["name"], root) if cell["name"] else all_found(root)


def refresh(folder: Path = NOTEBOOKS, root: Path = ROOT) -> None:
    """Fill the executed cells of the notebooks in `folder` that show what experiments found: the rows are in `root`."""
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, 4)
        executed = (cell for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count)
        shown = [(cell, match) for cell in executed if (match := CELL.fullmatch(cell.source.strip()))]
        for cell, match in shown:
            data = {"text/html": page_of(match, root), "text/plain": "<IPython.core.display.HTML object>"}
            cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=cell.execution_count)]
        if shown:
            nbformat.write(notebook, path)


def _claims(name: str, rows: list[dict]) -> str:
    """The claims in the order in which they were written down; of nested ones all tables, the first one unfolded."""
    experiment = EXPERIMENTS[name]
    if not experiment.contrasts:
        found = [(title, tables.table("", head, lines))
                 for title, (head, *lines) in nested.tables(rows, experiment.nests)]
        return "".join(f"<details{'' if number else ' open'}><summary>{text(title)}</summary>{shown}</details>"
                       for number, (title, shown) in enumerate(found))
    lines = [(one.contrast.question, one.contrast.words, contrasts.points(one.effect), f"{one.p_holm:.2g}",
              one.detectable_words, one.verdict_words)
             for one in contrasts.compare(rows, experiment.contrasts)]
    head = ("question", "claim", "points [95 %]", "p, Holm", "detectable", "verdict")
    arms = tables.table("", ("arm", "is"), list(experiment.arms.items()))
    return arms + tables.table(
        "Supported: a difference in the claimed direction; not supported: one in the other. Detectable: the smallest "
        "true difference that so many seeds would show four times in five.", head, lines)
