"""`phi-lab stage`: train one stage of an open run; what `phi-lab run` launches, once a process."""

import argparse
import os
from pathlib import Path

from phi_lab.cli.options import add_command
from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.core.run_folder import RunFolder


def add_parser(commands) -> None:
    """Add `stage` and its options."""
    parser = add_command(
        commands, "stage", run, "train one stage of an open run, in as many processes as torchrun starts",
        "torchrun --nproc-per-node 8 -m phi_lab stage mid --out runs/full",
    )
    parser.add_argument("stage", help=", ".join(schema.STAGES[1:]))
    parser.add_argument("--out", type=Path, required=True, help="run folder with its data; `phi-lab run` makes one")
    parser.add_argument("--functions", default=None, metavar="DIGEST", help=argparse.SUPPRESS)


def run(options) -> None:
    """Train the stage."""
    presets.require_trained_stage(options.stage)
    if not RunFolder(options.out).config.is_file():
        raise UserError(f"{RunFolder(options.out).config} is missing: `phi-lab run` makes one")
    from phi_lab.core.lifeline import die_with_parent

    if "LOCAL_RANK" in os.environ:  # torchrun started it; a shell that did may end before
        die_with_parent()
    from phi_lab.pipeline import launch, stage_runner

    stage_runner.train_launched(options.stage, RunFolder(options.out), options.functions)
    launch.leave()
