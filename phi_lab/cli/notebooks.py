"""`phi-lab notebooks`: make the .ipynb files again from their sources, or a learner's copies of them."""

from pathlib import Path

from phi_lab.cli.options import add_command, check_meaning
from phi_lab.core.errors import UserError
from phi_lab.core.run_folder import RunFolder


def add_parser(commands) -> None:
    """Add `notebooks` and its options."""
    parser = add_command(
        commands, "notebooks", run, "make notebooks/*.ipynb again from notebooks/source/*.py, or your copies of them",
        "phi-lab notebooks --reset 02 pack",
    )
    parser.add_argument("--outputs-from", type=Path, default=None, metavar="DIR",
                        help="take the cells' outputs from this finished `phi-lab course` folder")
    parser.add_argument("--copies", action="store_true",
                        help="copy the notebooks to runs/notebooks, where `make lab` opens them; yours are never "
                        "written over")
    parser.add_argument("--reset", nargs="+", default=None, metavar=("NAME", "EXERCISE"),
                        help="take a page, or one exercise on it, from the course again; the old page is kept in "
                        "runs/notebooks/before-reset")


def run(options) -> None:
    """Write the notebooks, the copies, or one page."""
    check_meaning(not options.reset, "no --reset", {"--copies": options.copies, "--outputs-from": options.outputs_from})
    check_meaning(not options.copies, "no --copies", {"--outputs-from": options.outputs_from})
    if options.reset:
        from phi_lab.pipeline import working_copies

        if len(options.reset) > 2:
            raise UserError("--reset takes the name of a notebook, and at most one exercise")
        print(f"done; the page as it was: {working_copies.reset(*options.reset)}")
        return
    if options.copies:
        from phi_lab.pipeline import working_copies

        working_copies.make_copies()
        return
    from phi_lab.lab import paper_questions
    from phi_lab.pipeline import notebooks

    notebooks.convert(RunFolder(options.outputs_from) if options.outputs_from else None)
    paper_questions.refresh()
