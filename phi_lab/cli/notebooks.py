"""`phi-lab notebooks`: make the .ipynb files again from their sources."""

from pathlib import Path

from phi_lab.cli.options import add_command
from phi_lab.core.run_folder import RunFolder


def add_parser(commands) -> None:
    """Add `notebooks` and its option."""
    parser = add_command(
        commands, "notebooks", run, "make notebooks/*.ipynb again from notebooks/source/*.py",
        "phi-lab notebooks --outputs-from runs/course",
    )
    parser.add_argument("--outputs-from", type=Path, default=None, metavar="DIR",
                        help="take the cells' outputs from this finished `phi-lab course` folder")


def run(options) -> None:
    """Write the notebooks."""
    from phi_lab.pipeline import notebooks

    notebooks.convert(RunFolder(options.outputs_from) if options.outputs_from else None)
