"""Who passed which exercise: a table over the notebooks that learners have saved. No code is run.

It believes what a saved page says, and a page is a text file: this is for helping people, not for grading them.

    phi-lab progress hand-ins --html progress.html
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line, printable
from phi_lab.pipeline.exercise_cells import read_notebook, states

BEST_FIRST = ("right", "wrong", "not attempted", "not run", "no page")
SIGNS = {"right": "✓", "wrong": "✗", "not attempted": "○", "not run": "·", "no page": " "}
SKIPPED = (".ipynb_checkpoints", "before-reset")  # Jupyter's own copies, and those of `phi-lab notebooks --reset`


@dataclass
class Progress:
    """exercises: (page, exercise) in the order of the course; learners: their states; damaged: a line a notebook."""

    exercises: list[tuple[str, str]]
    learners: dict[str, dict[str, str]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def state(self, learner: str, exercise: str) -> str:
        """One of `BEST_FIRST`."""
        return self.learners[learner].get(exercise, "no page")

    def passed(self, learner: str) -> int:
        """How many exercises of the course this learner's pages call right."""
        return sum(self.state(learner, exercise) == "right" for _, exercise in self.exercises)


def read_class(folders: Sequence[Path], originals: Path | None = None) -> Progress:
    """The progress of everybody whose notebooks lie in or below `folders`. A learner's name is the path of the folder
    that holds the notebooks; of several pages with the same exercise the best counts.

    Raises UserError for a folder that is missing or holds no notebook.
    """
    originals = originals or paths.NOTEBOOKS
    pages = sorted(originals.glob("*.ipynb"))
    progress = Progress([(page.stem, name) for page in pages for name in states(read_notebook(page)["cells"])])
    places: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name one with saved notebooks")
        found = [path for path in sorted(folder.rglob("*.ipynb")) if not set(path.parts) & set(SKIPPED)]
        if not found:
            raise UserError(f"{folder}: no notebook (*.ipynb) in it")
        for path in found:
            _add(progress, path, _learner(path, folder, places))
    return progress


def _learner(path: Path, folder: Path, places: dict[str, Path]) -> str:
    """places: whose folder is which; the second of two folders of one name is called by its whole path."""
    inside, place = path.parent.relative_to(folder).as_posix(), path.parent.resolve()
    name = place.name if inside == "." else inside
    return name if places.setdefault(name, place) == place else place.as_posix()


def _add(progress: Progress, path: Path, learner: str) -> None:
    mine = progress.learners.setdefault(learner, {})
    try:
        found = states(read_notebook(path, "ask for it again")["cells"])
    except (UserError, OSError) as error:
        progress.damaged.append(one_line(error, 300))
        return
    for exercise, state in found.items():
        mine[exercise] = min(mine.get(exercise, state), state, key=BEST_FIRST.index)


def as_rows(progress: Progress) -> list[dict]:
    """One row a learner and exercise: learner, page, exercise, state."""
    return [{"learner": learner, "page": page, "exercise": exercise, "state": progress.state(learner, exercise)}
            for learner in progress.learners for page, exercise in progress.exercises]


def as_csv(progress: Progress) -> str:
    """A line a learner, a column an exercise. A name that a spreadsheet would read as a formula gets a quote."""
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(["learner", "right", "of", *(f"{page[:2]} {exercise}" for page, exercise in progress.exercises)])
    for learner in progress.learners:
        name = f"'{learner}" if learner.startswith(("=", "+", "-", "@")) else learner
        table.writerow([printable(name), progress.passed(learner), len(progress.exercises),
                        *(progress.state(learner, exercise) for _, exercise in progress.exercises)])
    return lines.getvalue()


def as_text(progress: Progress) -> str:
    """A line a learner: how many are right, and a sign an exercise, grouped by page."""
    pages = list(dict.fromkeys(page for page, _ in progress.exercises))
    width = max([len("learner"), *(len(printable(learner)) for learner in progress.learners)])

    def signs(learner: str, page: str) -> str:
        return "".join(SIGNS[progress.state(learner, name)] for where, name in progress.exercises if where == page)

    columns = [max(2, sum(where == page for where, _ in progress.exercises)) for page in pages]
    lines = [_line("learner", "right", (page[:2] for page in pages), columns, width)]
    for learner in progress.learners:
        share = f"{progress.passed(learner)}/{len(progress.exercises)}"
        lines.append(_line(printable(learner), share, (signs(learner, page) for page in pages), columns, width))
    meaning = ", ".join(f"{sign} {state}" for state, sign in SIGNS.items() if sign.strip())
    return "\n".join([*lines, f"{meaning}; empty: no page"])


def _line(name: str, share: str, cells: Iterable[str], columns: Sequence[int], width: int) -> str:
    return " ".join([f"{name:<{width}}", f"{share:>5}", *(f"{cell:<{size}}" for cell, size in zip(
        cells, columns, strict=True))]).rstrip()


def as_html(progress: Progress) -> str:
    """A page with the table, how many passed each exercise, and what could not be read."""
    from phi_lab.report import html  # loads matplotlib, which the other forms need not

    head = ["learner", "right", *(f"{html.text(page[:2])}<br>{html.text(name)}" for page, name in progress.exercises)]
    lines = []
    for learner in progress.learners:
        shown = [progress.state(learner, name) for _, name in progress.exercises]
        lines.append([html.text(learner), str(progress.passed(learner)),
                      *(f'<span class="{state.split()[0]}">{SIGNS[state]} {state}</span>' for state in shown)])
    passed = [sum(progress.state(learner, name) == "right" for learner in progress.learners)
              for _, name in progress.exercises]
    lines.append(["passed by", "", *map(str, passed)])
    caption = f"{len(progress.learners)} learners. It shows what saved pages say; nothing was run to find out."
    body = f"<h1>Progress</h1>{html.table(html.text(caption), head, lines)}"
    if progress.damaged:
        body += "<h2>Could not be read</h2>" + "".join(f"<p>{html.text(line)}</p>" for line in progress.damaged)
    return html.frame("Progress", body)
