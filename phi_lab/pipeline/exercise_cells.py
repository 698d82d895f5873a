"""Exercises in a notebook's JSON: which cells belong to which exercise, and what its check said. No code is run.

An exercise is two cells: the stub, and the cell with `checks.NAME.use(function)`. Both carry the exercise's id, the
name in lower case, in their metadata, which JupyterLab and VS Code keep when they save. So the cells are found again
whatever a learner writes into them.
"""

import re
from pathlib import Path
from typing import Any

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json

CHECK = re.compile(r"\bchecks\.([A-Z_]+)\.use\((\w+)\)")
SAID = re.compile(r"<b>([○✓✗]) \w+: ")  # how a verdict of `lab.grading` begins
STATES = {"✓": "right", "✗": "wrong", "○": "not attempted"}
STUB, CHECKED = "stub", "check"


def read_notebook(path: Path, fix: str = "restore it, or save it again in Jupyter") -> dict[str, Any]:
    """A notebook as JSON, with the text of each cell in one string. Raises UserError for a damaged one."""
    notebook = read_json(path, ("cells",), fix)
    cells = notebook["cells"]
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise UserError(f"{path} has an unexpected form: no list of cells; {fix}")
    for number, cell in enumerate(cells, 1):
        source = cell.get("source", "")
        lines = source if isinstance(source, list) else [source]
        well_formed = isinstance(cell.get("metadata", {}), dict) and isinstance(cell.get("outputs", []), list)
        if not well_formed or not all(isinstance(line, str) for line in lines):
            raise UserError(f"{path}, cell {number} has an unexpected form; {fix}")
        cell["source"] = "".join(lines)
    return notebook


def mark_exercises(cells: list) -> None:
    """Write the exercise's id into the metadata of its two cells, and the tag "exercise" on its stub."""
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code" or not (found := CHECK.search(cell["source"])):
            continue
        exercise, attempt = found[1].lower(), found[2]
        _mark(cell, exercise, CHECKED)
        stub = re.compile(rf"^def {attempt}\(", re.MULTILINE)
        before = (cells[i] for i in range(number - 1, -1, -1) if cells[i]["cell_type"] == "code")
        if one := next((other for other in before if stub.search(other["source"])), None):
            _mark(one, exercise, STUB)
            one["metadata"]["tags"] = ["exercise"]


def _mark(cell: Any, exercise: str, part: str) -> None:
    cell["metadata"]["phi_lab"] = {"exercise": exercise, "part": part}


def part_of(cell: dict, exercise: str | None = None) -> tuple[str, str] | None:
    """(exercise, "stub" or "check") of a cell that was marked, if it belongs to this exercise; None of another cell."""
    marked = cell.get("metadata", {}).get("phi_lab")
    if not isinstance(marked, dict) or not isinstance(marked.get("exercise"), str):
        return None
    found = marked["exercise"], str(marked.get("part"))
    return found if exercise in (None, found[0]) else None


def states(cells: list[dict]) -> dict[str, str]:
    """What the checks said when the notebook was saved: {exercise: "right", "wrong", "not attempted", "not run"}.

    A notebook of an older release, whose cells are not marked, is read by its text.
    """
    found = {}
    for cell in cells:
        part = part_of(cell)
        if part is None and (called := CHECK.search(cell["source"])) and cell.get("cell_type") == "code":
            part = called[1].lower(), CHECKED
        if part and part[1] == CHECKED:
            found[part[0]] = _state(cell)
    return found


def _state(cell: dict) -> str:
    for output in reversed(cell.get("outputs", [])):
        data = output.get("data", {}) if isinstance(output, dict) else {}
        html = data.get("text/html", "") if isinstance(data, dict) else ""
        said = SAID.search("".join(map(str, html)) if isinstance(html, list) else str(html))
        if said:
            return STATES[said[1]]
    return "not run"
