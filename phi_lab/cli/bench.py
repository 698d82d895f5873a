"""`phi-lab bench`: how fast this computer rolls out, trains and verifies, against the usual libraries."""

from pathlib import Path

from phi_lab.cli.options import add_command


def add_parser(commands) -> None:
    """Add `bench` and its option."""
    parser = add_command(commands, "bench", run, "measure rollouts, training and verification on this computer",
                         "phi-lab bench --json bench.json")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write the figures to this file")


def run(options) -> None:
    """Measure and print."""
    from phi_lab.pipeline import bench

    bench.bench(options.json)
