"""`phi-lab report`: write a run's report again."""

from pathlib import Path

from phi_lab.cli.options import add_command


def add_parser(commands) -> None:
    """Add `report`."""
    parser = add_command(commands, "report", run, "write report.html of a run folder", "phi-lab report runs/first")
    parser.add_argument("folder", type=Path, help="of a run")


def run(options) -> None:
    """Write the report and print its path."""
    from phi_lab.report import report

    print(report.write_report(options.folder))
