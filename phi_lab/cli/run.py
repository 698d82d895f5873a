"""`phi-lab run`: train the stages one after another and measure each."""

import os
import shlex
import shutil
from pathlib import Path

from phi_lab.cli.options import (
    add_command,
    add_local_copies,
    at_least,
    check_meaning,
    check_model,
    check_out,
    seed,
    use_local_copies,
)
from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.core.run_folder import DataFolder, RunFolder


def add_parser(commands) -> None:
    """Add `run` and its options."""
    parser = add_command(
        commands, "run", run, "train the stages from --from to --to, measure each, and write a report",
        "phi-lab run --scale cpu --profile lab --seed 1 --out runs/second",
    )
    parser.add_argument("--scale", default="cpu", help=f"hardware: {', '.join(schema.SCALES)}")
    parser.add_argument("--profile", default="lab",
                        help="lab: the whole recipe; smoke: two minutes, each stage from a shipped checkpoint")
    parser.add_argument("--seed", type=seed, default=0, help="another seed is another, independent run")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an existing one is continued")
    parser.add_argument("--from", dest="start", default="mid", help=f"first stage: {', '.join(schema.STAGES)}")
    parser.add_argument("--to", dest="stop", default="grpo", help="last stage")
    parser.add_argument("--data", type=Path, default=None, metavar="DIR",
                        help="train on this folder of `phi-lab distill`; by default the run distils its own data")
    parser.add_argument("--model", default=None, metavar="NAME",
                        help="what a GPU scale starts from: a folder or a name on the hub; by default Phi-4-mini")
    add_local_copies(parser, "--sets")
    parser.add_argument("--leave-out-gated", action="store_true",
                        help="do not measure benchmarks that the hub gives to accounts with access only (GPQA Diamond)")
    parser.add_argument("--processes", type=at_least(1), default=None, metavar="N",
                        help="training processes on this machine; by default one for each GPU at the scale full, "
                        "else one")
    parser.add_argument("--launcher", default="", metavar="COMMAND",
                        help="starts the training processes instead, such as 'srun torchrun ...' on several nodes "
                        "(docs/scaling.md)")


def run(options) -> None:
    """Train and measure. Names and folders are checked first: importing what trains takes seconds."""
    presets.run_config(options.scale, options.profile)
    presets.stage_range(options.start, options.stop)
    check_out(options.out)
    check_model(options.model)
    check_meaning(options.scale != "cpu", "a GPU scale", {
        "--local-copies": options.local_copies, "--leave-out-gated": options.leave_out_gated})
    check_meaning(not options.launcher.strip(), "no --launcher", {"--processes": options.processes})
    if options.data and not DataFolder(options.data).right.is_file():
        raise UserError(f"{DataFolder(options.data).right} is missing: --data takes a folder of `phi-lab distill`")
    try:
        own = shlex.split(options.launcher)
    except ValueError as error:
        raise UserError(f"--launcher {options.launcher}: {error}") from None
    if own and not shutil.which(own[0]):  # told now, and not after distilling and measuring
        raise UserError(f"--launcher {options.launcher}: no program {own[0]} on this machine's PATH")
    from phi_lab.pipeline import launch
    from phi_lab.pipeline import run as pipeline

    launcher = own or (launch.local(options.processes) if options.processes else None)
    use_local_copies(options.local_copies)
    if options.leave_out_gated:
        os.environ["PHI_LAB_LEAVE_OUT_GATED"] = "1"
    pipeline.run_chain(
        RunFolder(options.out), scale_name=options.scale, profile=options.profile, seed=options.seed,
        start=options.start, stop=options.stop, data=options.data, model=options.model, launcher=launcher,
    )
