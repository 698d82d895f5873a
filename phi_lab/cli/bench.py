"""`phi-lab bench`: how fast this computer rolls out, trains and verifies, against the usual libraries."""

import os
from pathlib import Path

from phi_lab.cli.options import add_command, check_file
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json


def add_parser(commands) -> None:
    """Add `bench` and its option."""
    parser = add_command(commands, "bench", run, "measure rollouts, training and verification on this computer, in "
                         "about twelve minutes on two cores", "phi-lab bench --json bench.json")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write the figures to this file")


def run(options) -> None:
    """Measure and print. Raises UserError for a file that is not this command's, before twelve minutes are spent."""
    if options.json:
        _require_own(options.json)
    from phi_lab.pipeline import bench

    bench.bench(options.json)


def _require_own(path: Path) -> None:
    """Make the file's folder. Raises UserError where the file cannot be written, or is of something else."""
    check_file("--json", path)
    if path.exists() and path.stat().st_size:
        try:
            read_json(path, ("matmul_gflops",))
        except UserError:
            raise UserError(f"{path} holds something else than figures of bench: choose another --json") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent} cannot be written: choose another --json")
