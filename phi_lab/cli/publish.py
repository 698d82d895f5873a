"""`phi-lab publish` (`ship` in release 0.1): a finished run becomes what this repository ships."""

from pathlib import Path

from phi_lab.cli.options import add_command
from phi_lab.core.run_folder import RunFolder
from phi_lab.report.ladder_rows import read_ladder


def add_parser(commands) -> None:
    """Add `publish`, and `ship` as its other name."""
    parser = add_command(
        commands, "publish", run, "copy a run's checkpoints and rollouts into data/, with a card",
        "phi-lab publish runs/first", aliases=["ship"],
    )
    parser.add_argument("folder", type=Path, help="of a finished run in the lab profile; base and teacher are copied "
                        "too if it began with --from base")


def run(options) -> None:
    """Copy and describe."""
    read_ladder(RunFolder(options.folder).ladder)  # a folder that is no run is told before torch is imported
    from phi_lab.pipeline import publish

    publish.publish(RunFolder(options.folder))
