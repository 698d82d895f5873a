"""`phi-lab course`: execute all notebooks in order."""

from pathlib import Path

from phi_lab.cli.options import add_command, check_out
from phi_lab.config import presets
from phi_lab.core.run_folder import RunFolder


def add_parser(commands) -> None:
    """Add `course` and its options."""
    parser = add_command(
        commands, "course", run, "execute all notebooks in order and write the report of their run",
        "phi-lab course --profile smoke --out runs/course-smoke",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/course"))
    parser.add_argument("--profile", default="lab", help="lab; lesson: each page in two to three minutes; smoke")


def run(options) -> None:
    """Execute the notebooks."""
    presets.course_config("cpu", options.profile)
    check_out(options.out)
    from phi_lab.pipeline import notebooks

    notebooks.run_course(RunFolder(options.out), options.profile)
