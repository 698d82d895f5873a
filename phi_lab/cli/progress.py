"""`phi-lab progress`: who passed which exercise, read from saved notebooks."""

import json
import sys
from pathlib import Path

from phi_lab.cli.options import add_command, check_file
from phi_lab.core.errors import UserError

# How the files of this command begin. Whatever begins otherwise is somebody's, perhaps a learner's notebook.
OURS = {"--csv": b"learner,right,of", "--html": b'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        b"<title>Progress</title>"}


def add_parser(commands) -> None:
    """Add `progress` and its options."""
    parser = add_command(
        commands, "progress", run, "say who passed which exercise, from the notebooks that learners saved",
        "phi-lab progress hand-ins --csv progress.csv",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR",
                        help="with one folder of notebooks a learner, or with the notebooks of one")
    parser.add_argument("--csv", type=Path, default=None, metavar="FILE", help="also write a line a learner")
    parser.add_argument("--html", type=Path, default=None, metavar="FILE", help="also write a page")
    parser.add_argument("--json", action="store_true", help="print JSON: learner, page, exercise, state")


def run(options) -> None:
    """Print the table, and a line on stderr for each notebook that cannot be read."""
    from phi_lab.core.files import atomic_write
    from phi_lab.pipeline import class_progress

    for option, path in (("--csv", options.csv), ("--html", options.html)):
        if path:
            _require_own(option, path)
    if options.csv and options.html and options.csv.resolve() == options.html.resolve():
        raise UserError(f"--csv and --html are one file, {options.csv}: name two")
    progress = class_progress.read_class(options.folders)
    if options.json:
        print(json.dumps(class_progress.as_rows(progress), indent=1, ensure_ascii=False))
    else:
        print(class_progress.as_text(progress))
    for path, content in ((options.csv, class_progress.as_csv), (options.html, class_progress.as_html)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content(progress).encode())
    for line in progress.damaged:
        print(f"not read: {line}", file=sys.stderr)


def _require_own(option: str, path: Path) -> None:
    """Raises UserError where a file would be written over that this command did not write."""
    check_file(option, path)
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(200).startswith(OURS[option]):
                raise UserError(f"{path} is no table of this command, and is not written over: choose another {option}")
