"""A learner's copies of the notebooks, in a folder that git ignores: `git pull` never meets work in a tracked file.

A copy that nobody has changed follows the course's page when that changes; a changed one is never written over. What
a reset replaces is kept in before-reset/.

    phi-lab notebooks --copies; phi-lab notebooks --reset 02 pack
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json
from phi_lab.core.locks import locked
from phi_lab.pipeline.exercise_cells import CHECKED, mark_exercises, part_of, read_notebook, states

FOLDER = paths.ROOT / "runs" / "notebooks"
MADE_FROM = "made-from.json"  # {name: digest of the page as it was copied}
# As Jupyter names it: another name makes it save a page that was only opened.
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3 (ipykernel)"}


def make_copies(folder: Path = FOLDER, originals: Path | None = None, log: Callable[[str], None] = print) -> None:
    """Copy each notebook that is not in `folder`, renew each copy that nobody changed, and leave the others alone."""
    originals = originals or paths.NOTEBOOKS
    with locked(folder):
        made_from = _made_from(folder)
        for original in sorted(originals.glob("*.ipynb")):
            fresh, target = _fresh(original), folder / original.name
            new = digest(fresh)
            if target.exists():
                if made_from.get(original.stem) == new:
                    continue
                if not _is_untouched(target, made_from.get(original.stem)):
                    log(f"{target.name}: yours is kept, and the course has a newer page; to take that one: "
                        f"phi-lab notebooks --reset {original.stem}")
                    continue
            write_json(target, fresh)
            made_from[original.stem] = new
            write_json(folder / MADE_FROM, made_from)
    log(f"your copies of the notebooks: {folder}")


def reset(name: str, exercise: str | None = None, folder: Path = FOLDER, originals: Path | None = None) -> Path:
    """Take a page, or the two cells of one exercise on it, from the course again; returns where the old page is kept.

    name: "02", "02_mid_training" or its file name. Raises UserError for a page or an exercise that there is none of,
    and for a copy whose cells of the exercise were deleted.
    """
    original = _original(name, originals or paths.NOTEBOOKS)
    fresh, target = _fresh(original), folder / original.name
    known = states(fresh["cells"])
    if exercise is not None and exercise not in known:
        raise UserError(f"{original.stem} has no exercise {exercise!r}; it has {', '.join(known) or 'none'}")
    if not target.exists():
        raise UserError(f"{target} is missing: `phi-lab notebooks --copies` makes it")
    with locked(folder):
        made_from = _made_from(folder)
        if exercise is None:
            changed, made_from[original.stem] = fresh, digest(fresh)
        else:
            changed = read_notebook(target, f"phi-lab notebooks --reset {original.stem} takes the whole page")
            _restore_exercise(changed, fresh, exercise, target)
        kept = _keep(target)
        write_json(target, changed)
        write_json(folder / MADE_FROM, made_from)
    return kept


def digest(notebook: dict) -> str:
    """A hash of what people write and see in a notebook: sources and outputs, not what Jupyter adds when it saves."""
    content = [(cell.get("cell_type"), cell["source"], _joined(cell.get("outputs", []))) for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _joined(value: Any) -> Any:
    """Outputs in one form: Jupyter saves texts as lists of lines, and counts executions."""
    if isinstance(value, dict):
        return {key: _joined(one) for key, one in value.items() if key not in ("execution_count", "metadata")}
    if isinstance(value, list):
        lines = value and all(isinstance(one, str) for one in value)
        return "".join(value) if lines else [_joined(one) for one in value]
    return value


def _fresh(original: Path) -> dict:
    """The course's page as a copy starts: exercises marked, and their checks not run."""
    notebook = read_notebook(original, "restore it, as with `git checkout notebooks`")
    for cell in notebook["cells"]:
        cell.setdefault("metadata", {})
    mark_exercises(notebook["cells"])
    for cell in notebook["cells"]:
        if (part := part_of(cell)) and part[1] == CHECKED:
            cell.update(outputs=[], execution_count=None)
    notebook.setdefault("metadata", {})["kernelspec"] = KERNEL
    return notebook


def _is_untouched(target: Path, made_from: str | None) -> bool:
    try:
        return digest(read_notebook(target)) == made_from
    except UserError:  # damaged: somebody's work all the same
        return False


def _restore_exercise(notebook: dict, fresh: dict, exercise: str, target: Path) -> None:
    for original in [cell for cell in fresh["cells"] if part_of(cell, exercise)]:
        part = part_of(original)
        mine = [cell for cell in notebook["cells"] if part_of(cell) == part]
        if not mine:
            raise UserError(f"{target}: the {part[1]} of {exercise} is not in it any more; without the exercise's name "
                            "--reset takes the whole page")
        mine[0].update(source=original["source"], outputs=[], execution_count=None)


def _keep(target: Path) -> Path:
    """Copy a page to before-reset/, under the first free number."""
    folder = target.parent / "before-reset"
    folder.mkdir(exist_ok=True)
    number = 1
    while (kept := folder / f"{target.stem}-{number}.ipynb").exists():
        number += 1
    shutil.copy2(target, kept)
    return kept


def _made_from(folder: Path) -> dict:
    path = folder / MADE_FROM
    content = read_json(path, fix=f"delete {path}; copies are then never renewed") if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path} has an unexpected form; delete it; copies are then never renewed")
    return content


def _original(name: str, originals: Path) -> Path:
    pages = {path.stem: path for path in sorted(originals.glob("*.ipynb"))}
    wanted = name.removesuffix(".ipynb")
    found = [path for stem, path in pages.items() if wanted in (stem, stem[:2])]
    if not found:
        raise UserError(f"no notebook {name!r}: choose one of {', '.join(pages)}")
    return found[0]
